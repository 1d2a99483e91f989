-- What the market saw beside the offer that it gave a job: the few offers that it would have liked next.
create table placement (
    lease_id text primary key references lease,
    at timestamptz not null,
    considered jsonb not null
);
