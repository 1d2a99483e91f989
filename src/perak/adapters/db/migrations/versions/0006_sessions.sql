-- Who has a node's session: one replica, while it lives. A second agent is refused at the others too.
create table replica (
    number integer generated always as identity primary key,
    started_at timestamptz not null,
    alive_at timestamptz not null
);

alter table node
    -- The number that the session's replica drew for it, so that an older end never frees a newer session.
    add column session bigint,
    add column session_replica integer;
