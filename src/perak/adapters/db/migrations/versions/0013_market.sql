-- What identifies a job's workload: its earlier runs foretell later ones.
alter table job add column fingerprint text;
create index job_workload on job (fingerprint) where fingerprint is not null;

-- What was foretold of a lease's run when it was granted: predictions are held against what happened.
create table forecast (
    lease_id text primary key references lease,
    seconds double precision not null,
    low_seconds double precision not null,
    high_seconds double precision not null,
    source text not null,
    at timestamptz not null
);
create index forecast_recent on forecast (at);

-- Quotes that are held: the part of the offer is taken until the quote is used or expires.
create table quote (
    id text primary key,
    project_id text not null references project,
    offer_id text not null references offer,
    node_id text not null references node,
    state text not null check (state in ('held', 'used', 'expired')),
    price bigint not null check (price >= 0),
    resources jsonb not null,
    devices text[] not null default '{}',
    cpu_milli bigint not null check (cpu_milli >= 0),
    memory_bytes bigint not null check (memory_bytes >= 0),
    disk_bytes bigint not null check (disk_bytes >= 0),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    job_id text references job,
    check ((state = 'used') = (job_id is not null))
);
create index quote_held on quote (expires_at) where state = 'held';
create index quote_of_project on quote (project_id) where state = 'held';
alter table device add column quote_id text references quote;

-- What happened on the market, without names: the public price history is made of it. `devices_milli`:
-- thousandths of devices; a CPU device is one core. `price` is per device-hour; null: none was named.
create table market_event (
    seq bigint generated always as identity primary key,
    at timestamptz not null,
    kind text not null check (kind in ('offer', 'bid', 'cancellation', 'trade')),
    gpu boolean not null,
    model text,
    region text,
    grade text,
    price bigint,
    devices_milli bigint not null
);
create index market_event_at on market_event (at);
create trigger market_event_append_only before update or delete or truncate on market_event
    for each statement execute function refuse_change();

-- How much of what was offered was leased, in seconds of thousandths of devices, by class and hour.
create table market_use (
    hour timestamptz not null,
    gpu boolean not null,
    model text not null,
    region text not null,
    grade text not null,
    offered bigint not null,
    leased bigint not null,
    primary key (hour, gpu, model, region, grade)
);

create table market_sampled (at timestamptz not null);
insert into market_sampled values ('1970-01-01T00:00:00Z');

create function market_offered() returns trigger language plpgsql as $$
begin
    if new.state <> 'open' then
        return null;
    end if;
    insert into market_event (at, kind, gpu, model, region, grade, price, devices_milli)
    select new.updated_at, 'offer', true, each->>'model', new.region,
        new.standings->(each->>'uuid')->'standing'->>'grade',
        coalesce(new.price_gpu_set, new.price_gpu_posted), 1000 * count(*)
    from jsonb_array_elements(new.ask->'devices') each
    where coalesce(new.price_gpu_set, new.price_gpu_posted) is not null
    group by each->>'model', new.standings->(each->>'uuid')->'standing'->>'grade'
    union all
    select new.updated_at, 'offer', false, new.ask->>'cpu_model', new.region, null,
        coalesce(new.price_cpu_set, new.price_cpu_posted), new.cpu_milli
    where coalesce(new.price_cpu_set, new.price_cpu_posted) is not null;
    return null;
end $$;
create trigger market_offered_first after insert on offer
    for each row execute function market_offered();
create trigger market_offered after update of version on offer
    for each row when (new.version <> old.version) execute function market_offered();

create function market_bid() returns trigger language plpgsql as $$
begin
    insert into market_event (at, kind, gpu, model, region, price, devices_milli)
    select case when tg_op = 'INSERT' then new.created_at else new.ended_at end,
        case when tg_op = 'INSERT' then 'bid' else 'cancellation' end,
        gpus > 0, new.spec->'resources'->'gpu_models'->>0, new.spec->'regions'->>0,
        (new.spec->'limits'->>'max_price')::bigint,
        case when gpus > 0 then 1000 * gpus else (new.spec->'resources'->>'cpu_milli')::bigint end
    from (select coalesce((new.spec->'resources'->>'gpu_count')::bigint, 0) as gpus) wanted;
    return null;
end $$;
create trigger market_bid after insert on job for each row execute function market_bid();
create trigger market_cancelled after update of state on job
    for each row when (old.state = 'queued' and new.state = 'cancelled') execute function market_bid();

create function market_traded() returns trigger language plpgsql as $$
begin
    insert into market_event (at, kind, gpu, model, region, grade, price, devices_milli)
    select new.granted_at, 'trade', cardinality(new.devices) > 0,
        coalesce(
            (select each->>'model' from jsonb_array_elements(offer.ask->'devices') each
             where each->>'uuid' = new.devices[1]),
            offer.ask->>'cpu_model'),
        offer.region, offer.standings->new.devices[1]->'standing'->>'grade', new.price, new.devices_milli
    from offer where offer.id = new.offer_id;
    return null;
end $$;
create trigger market_traded after insert on lease for each row execute function market_traded();
