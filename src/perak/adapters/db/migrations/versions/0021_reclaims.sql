-- When the owner takes a draining node back; null: its runs go on to their end.
alter table node add column reclaim_at timestamptz;
create index node_reclaimed on node (id) where reclaim_at is not null;

-- What an offer says of its end, so that those that have one are found without reading every ask.
alter table offer
    add column available_until timestamptz
        generated always as (to_timestamp((ask->>'available_until_ms')::float8 / 1000)) stored,
    add column reclaim_notice_seconds bigint not null
        generated always as (coalesce((ask->>'reclaim_notice_seconds')::bigint, 0)) stored;
create index offer_ends on offer (node_id) where available_until is not null;

-- What the offer promised when the lease was granted, and what its renter was told: when the machine goes back,
-- and when that was said.
alter table lease
    add column reclaim_notice_seconds bigint not null default 0,
    add column reclaim_at timestamptz,
    add column reclaim_told_at timestamptz,
    add check ((reclaim_at is null) = (reclaim_told_at is null));
create index lease_reclaimed on lease (node_id) where reclaim_at is not null and state in ('active', 'suspected');
