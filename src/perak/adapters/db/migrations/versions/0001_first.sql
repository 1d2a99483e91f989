-- The first schema. Money is bigint micro-units of the exchange's one currency; every row that belongs to
-- somebody belongs to a project; every public id carries the name of the exchange.

create table exchange (
    singleton boolean primary key default true check (singleton),
    name text not null,
    currency text not null check (currency ~ '^[A-Z]{3,5}$'),
    fee_basis_points integer not null check (fee_basis_points between 0 and 10000),
    ca_certificate text not null,
    ca_key_sealed bytea not null,
    signing_chain text not null,
    signing_key_sealed bytea not null,
    created_at timestamptz not null,
    -- When some replica of the exchange was last alive: its own absence counts against nobody.
    alive_at timestamptz not null
);

create table project (
    id text primary key,
    name text not null unique,
    created_at timestamptz not null
);

create table api_key (
    id text primary key,
    project_id text not null references project,
    name text not null,
    secret_hash bytea not null unique,
    roles text[] not null check (cardinality(roles) > 0 and roles <@ array['renter', 'provider', 'operator']),
    created_at timestamptz not null,
    revoked_at timestamptz
);
create index api_key_project on api_key (project_id, id);

create table idempotency (
    project_id text not null references project,
    key text not null check (length(key) between 1 and 128),
    fingerprint bytea not null,
    status integer,
    body bytea,
    created_at timestamptz not null default now(),
    primary key (project_id, key)
);
create index idempotency_age on idempotency (created_at);

create table blob (
    project_id text not null references project,
    digest text not null check (digest ~ '^sha256:[0-9a-f]{64}$'),
    size_bytes bigint not null check (size_bytes >= 0),
    created_at timestamptz not null,
    primary key (project_id, digest)
);

-- Nodes and offers

create table invite (
    id text primary key,
    project_id text not null references project,
    secret_hash bytea not null unique,
    uses_left integer not null check (uses_left >= 0),
    created_at timestamptz not null,
    expires_at timestamptz not null
);

create table node (
    id text primary key,
    project_id text not null references project,
    name text not null,
    sign_key bytea not null unique check (length(sign_key) = 32),
    seal_key bytea not null check (length(seal_key) = 32),
    certificate_chain text not null,
    certificate_expires_at timestamptz not null,
    state text not null check (state in ('enrolled', 'online', 'suspected', 'offline', 'revoked')),
    mode text not null default 'accepting' check (mode in ('accepting', 'paused', 'draining')),
    report_seq bigint not null default 0,
    agent_id text,
    agent_version text,
    boot_id text,
    enrolled_at timestamptz not null,
    -- What the exchange has to say to the node's owner, last: a wrong clock, a second agent with its key.
    notice text,
    notice_at timestamptz,
    last_seen timestamptz
);
-- The name of a revoked node is free for its successor.
create unique index node_name on node (project_id, name) where state <> 'revoked';
create index node_watch on node (last_seen) where state in ('online', 'suspected');

create table offer (
    id text primary key,
    project_id text not null references project,
    node_id text not null unique references node,
    version bigint not null default 1,
    state text not null check (state in ('open', 'paused', 'withdrawn')),
    ask jsonb not null,
    region text not null,
    cpu_milli bigint not null check (cpu_milli >= 0),
    memory_bytes bigint not null check (memory_bytes >= 0),
    disk_bytes bigint not null check (disk_bytes >= 0),
    used_cpu_milli bigint not null default 0 check (used_cpu_milli >= 0),
    used_memory_bytes bigint not null default 0 check (used_memory_bytes >= 0),
    used_disk_bytes bigint not null default 0 check (used_disk_bytes >= 0),
    -- The node's provider file, and what the provider set on the exchange instead (null: the file's).
    price_gpu_posted bigint check (price_gpu_posted >= 0),
    price_cpu_posted bigint check (price_cpu_posted >= 0),
    price_gpu_set bigint check (price_gpu_set >= 0),
    price_cpu_set bigint check (price_cpu_set >= 0),
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index offer_project on offer (project_id, id);

-- Jobs, leases, runs

create table job (
    id text primary key,
    project_id text not null references project,
    key_id text not null references api_key,
    name text not null,
    state text not null
        check (state in ('queued', 'leased', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    reason text,
    spec jsonb not null,
    file jsonb not null,
    workdir_digest text,
    epoch integer not null default 0 check (epoch >= 0),
    attempts integer not null default 0 check (attempts >= 0),
    avoid text[] not null default '{}',
    hold_mode text not null check (hold_mode in ('full', 'rolling')),
    exit_code integer,
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    check ((state in ('succeeded', 'failed', 'cancelled')) = (ended_at is not null))
);
create index job_list on job (project_id, id desc);
create index job_name on job (project_id, name, id desc);
create index job_queue on job (id) where state = 'queued';

create table lease (
    id text primary key,
    job_id text not null references job,
    project_id text not null references project,
    offer_id text not null references offer,
    offer_version bigint not null,
    node_id text not null references node,
    provider_project_id text not null references project,
    epoch integer not null check (epoch > 0),
    state text not null check (state in ('active', 'suspected', 'ended', 'fenced')),
    price bigint not null check (price >= 0),
    devices_milli bigint not null check (devices_milli > 0),
    devices text[] not null default '{}',
    cpu_milli bigint not null check (cpu_milli >= 0),
    memory_bytes bigint not null check (memory_bytes >= 0),
    disk_bytes bigint not null check (disk_bytes >= 0),
    max_duration_seconds bigint not null check (max_duration_seconds > 0),
    duration_limited_by text not null check (duration_limited_by in ('max_duration', 'max_cost')),
    stop_cause text,
    granted_at timestamptz not null,
    suspected_at timestamptz,
    ended_at timestamptz,
    unique (job_id, epoch)
);
-- One live lease of a job at any time: only the current epoch settles.
create unique index lease_live_job on lease (job_id) where state in ('active', 'suspected');
create index lease_live_node on lease (node_id) where state in ('active', 'suspected');

create table device (
    offer_id text not null references offer,
    uuid text not null,
    position integer not null,
    model text not null,
    memory_bytes bigint not null,
    -- Exclusive: a device is part of one lease at most.
    lease_id text references lease,
    primary key (offer_id, uuid)
);

create table run (
    id text primary key,
    lease_id text not null unique references lease,
    job_id text not null references job,
    project_id text not null references project,
    node_id text not null references node,
    epoch integer not null,
    attempt integer not null check (attempt > 0),
    state text not null check (state in ('assigned', 'preparing', 'running', 'exited', 'refused', 'fenced')),
    detail text,
    tier text,
    enforced text[] not null default '{}',
    unenforced jsonb not null default '{}',
    created_at timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    exit_code integer,
    cause text,
    log_bytes bigint not null default 0 check (log_bytes >= 0),
    outputs jsonb,
    -- The last signed evidence that the run was alive: money follows it.
    evidence_until timestamptz,
    evidence jsonb,
    evidence_jws text,
    cost bigint,
    unique (job_id, attempt)
);

create table log_chunk (
    run_id text not null references run,
    start bigint not null check (start >= 0),
    data bytea not null check (length(data) > 0),
    primary key (run_id, start)
);

-- The steps of a job's life, for people and for the stream that they follow.
create table job_event (
    seq bigint generated always as identity primary key,
    job_id text not null references job,
    at timestamptz not null,
    kind text not null,
    detail text not null
);
create index job_event_job on job_event (job_id, seq);

create table receipt (
    id text primary key,
    project_id text not null references project,
    provider_project_id text not null references project,
    job_id text not null references job,
    run_id text not null unique references run,
    issued_at timestamptz not null,
    cost bigint not null,
    energy_joules double precision,
    carbon_grams double precision,
    payload jsonb not null,
    jws text not null
);
create index receipt_list on receipt (project_id, id desc);
create index receipt_job on receipt (job_id);

-- Whom a provider wants told of its nodes, and the messages: a queue that the replicas share.

create table webhook (
    id text primary key,
    project_id text not null references project,
    url text not null,
    events text[] not null,
    secret_sealed bytea not null,
    created_at timestamptz not null
);
create index webhook_project on webhook (project_id, id);

create table webhook_delivery (
    id bigint generated always as identity primary key,
    webhook_id text not null references webhook on delete cascade,
    event text not null,
    node_id text references node,
    body text not null,
    state text not null default 'waiting' check (state in ('waiting', 'delivered', 'failed')),
    attempts integer not null default 0,
    answer text,
    next_at timestamptz not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    check ((state = 'waiting') = (ended_at is null))
);
create index webhook_delivery_due on webhook_delivery (next_at) where state = 'waiting';
create index webhook_delivery_list on webhook_delivery (webhook_id, id desc);
create index webhook_delivery_age on webhook_delivery (ended_at) where ended_at is not null;

-- The ledger: double entry, two-phase, append-only (in the manner of TigerBeetle).
--
-- A transfer moves an amount from one account to another, so it can't be unbalanced. `pending` reserves,
-- `post` moves at most what was reserved and frees the rest, `void` frees all of it. Balances of limited
-- accounts (wallets) stand in their row, kept by the trigger below and nothing else, and can't go below
-- zero; the others, which everybody touches, are sums, so that nobody waits for their row.

create table account (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('wallet', 'earnings', 'escrow', 'fees', 'external')),
    project_id text references project,
    limited boolean generated always as (kind = 'wallet') stored,
    posted bigint not null default 0,
    pending bigint not null default 0 check (pending >= 0),
    constraint wallet_covers check (kind <> 'wallet' or posted - pending >= 0),
    constraint whose check ((kind in ('wallet', 'earnings')) = (project_id is not null)),
    unique nulls not distinct (kind, project_id)
);
insert into account (kind) values ('escrow'), ('fees'), ('external');

create table transfer (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    phase text not null check (phase in ('single', 'pending', 'post', 'void')),
    kind text not null check (kind in ('fund', 'hold', 'capture', 'release', 'payout', 'fee')),
    debit bigint not null references account,
    credit bigint not null references account,
    amount bigint not null,
    pending_id bigint references transfer,
    job_id text references job,
    run_id text references run,
    note text,
    check (debit <> credit),
    check (amount > 0 or (amount = 0 and phase = 'void')),
    check ((phase in ('post', 'void')) = (pending_id is not null))
);
-- A reservation is posted or voided once.
create unique index transfer_resolves on transfer (pending_id) where pending_id is not null;
create index transfer_debit on transfer (debit, id);
create index transfer_credit on transfer (credit, id);
create index transfer_job on transfer (job_id) where job_id is not null;

create function transfer_apply() returns trigger language plpgsql as $$
declare
    reserved transfer%rowtype;
begin
    if new.phase in ('post', 'void') then
        select * into strict reserved from transfer where id = new.pending_id;
        if reserved.phase <> 'pending' or reserved.debit <> new.debit or reserved.credit <> new.credit then
            raise exception 'transfer % does not match the reservation that it resolves', new.pending_id
                using errcode = 'integrity_constraint_violation';
        end if;
        if new.amount > reserved.amount then
            raise exception 'transfer would post % of the % reserved', new.amount, reserved.amount
                using errcode = 'integrity_constraint_violation';
        end if;
    end if;
    if new.phase = 'pending' then
        update account set pending = pending + new.amount where id = new.debit and limited;
    elsif new.phase = 'single' then
        update account set posted = posted - new.amount where id = new.debit and limited;
        update account set posted = posted + new.amount where id = new.credit and limited;
    elsif new.phase = 'post' then
        update account set posted = posted - new.amount, pending = pending - reserved.amount
            where id = new.debit and limited;
        update account set posted = posted + new.amount where id = new.credit and limited;
    else
        update account set pending = pending - reserved.amount where id = new.debit and limited;
    end if;
    return new;
end $$;
create trigger transfer_apply before insert on transfer for each row execute function transfer_apply();

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'integrity_constraint_violation';
end $$;
create trigger transfer_append_only before update or delete or truncate on transfer
    for each statement execute function refuse_change();
create trigger receipt_append_only before update or delete or truncate on receipt
    for each statement execute function refuse_change();

create function account_guard() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if new.posted <> 0 or new.pending <> 0 then
            raise exception 'accounts begin empty' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end if;
    if tg_op = 'DELETE' then
        raise exception 'accounts are kept' using errcode = 'integrity_constraint_violation';
    end if;
    -- Depth 1 is a statement of somebody; depth 2 is transfer_apply.
    if pg_trigger_depth() < 2 then
        raise exception 'balances change by transfers only' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger account_guard before insert or update or delete on account for each row execute function account_guard();
