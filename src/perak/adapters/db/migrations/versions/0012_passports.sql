-- What nodes report of their devices, what the exchange makes of it, and the devices' passports.
create table inspection (
    digest text primary key,
    device text not null,
    node_id text not null references node,
    project_id text not null references project,
    model text not null,
    kind text not null check (kind in ('quick', 'full', 'soak')),
    document text not null,
    -- The node's signed report: the evidence.
    jws text not null,
    ended_at timestamptz not null,
    received_at timestamptz not null
);
create index inspection_device on inspection (device, ended_at desc);

create table wipe (
    digest text primary key,
    device text not null,
    node_id text not null references node,
    status text not null check (status in ('passed', 'failed', 'not_run')),
    jws text not null,
    ended_at timestamptz not null
);
create index wipe_device on wipe (device, ended_at desc);

-- The exchange's own summary of a device on a node; offers carry a copy of what the market reads.
create table standing (
    node_id text not null references node,
    device text not null,
    project_id text not null references project,
    model text,
    throughputs jsonb not null default '{}',
    rejected boolean not null,
    document jsonb not null,
    first_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (node_id, device)
);
create index standing_device on standing (device);
create index standing_model on standing (model);

alter table offer add column standings jsonb not null default '{}';

-- Signed credentials, each naming the one before by its digest.
create table passport_entry (
    device text not null,
    seq integer not null check (seq > 0),
    kind text not null check (kind in ('inspected', 'wiped')),
    digest text not null unique,
    credential text not null,
    node_id text not null references node,
    at timestamptz not null,
    primary key (device, seq)
);
create trigger passport_append_only before update or delete or truncate on passport_entry
    for each statement execute function refuse_change();
create trigger inspection_append_only before update or delete or truncate on inspection
    for each statement execute function refuse_change();
create trigger wipe_append_only before update or delete or truncate on wipe
    for each statement execute function refuse_change();

-- A device's leases, and a node's of late: read when an inspection arrives.
create index lease_devices on lease using gin (devices) where devices <> '{}';
create index lease_node on lease (node_id, granted_at);
