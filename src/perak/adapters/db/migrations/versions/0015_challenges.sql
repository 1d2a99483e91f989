-- What the exchange asked of a node's devices, all at once, and what they answered.
create table challenge (
    id text primary key,
    node_id text not null references node,
    nonce text not null,
    devices text[] not null,
    leaves integer not null check (leaves > 0),
    steps integer not null check (steps > 0),
    -- Null: nothing is known of how fast a device is alone.
    allowed_seconds double precision,
    asked_at timestamptz not null,
    -- Kept until they are judged.
    proofs jsonb not null default '[]',
    problem text,
    answered_at timestamptz,
    judged_at timestamptz,
    problems text[] not null default '{}',
    -- Whether a proof was wrong or late; null: not judged yet.
    unmet boolean
);
create index challenge_node on challenge (node_id, asked_at desc);
create index challenge_open on challenge (asked_at) where judged_at is null;
