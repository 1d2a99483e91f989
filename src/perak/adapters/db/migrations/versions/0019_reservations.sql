-- A window that is kept for a job: a part of an offer, at a price in micro-units per device-hour.
create table reservation (
    job_id text primary key references job,
    project_id text not null references project,
    offer_id text not null references offer,
    node_id text not null references node,
    provider_project_id text not null references project,
    state text not null check (state in ('booked', 'begun', 'ended', 'cancelled', 'lost')),
    price bigint not null check (price >= 0),
    devices_milli bigint not null check (devices_milli > 0),
    devices text[] not null default '{}',
    cpu_milli bigint not null check (cpu_milli >= 0),
    memory_bytes bigint not null check (memory_bytes >= 0),
    disk_bytes bigint not null check (disk_bytes >= 0),
    start_at timestamptz not null,
    end_at timestamptz not null,
    created_at timestamptz not null,
    -- Why it was moved or lost, for people.
    note text,
    -- Since when it could not be begun, and when that was last tried.
    missed_since timestamptz,
    tried_at timestamptz,
    check (end_at > start_at)
);
create index reservation_of_offer on reservation (offer_id) where state in ('booked', 'begun');
create index reservation_of_node on reservation (node_id) where state in ('booked', 'begun');
create index reservation_of_project on reservation (project_id) where state in ('booked', 'begun');

-- No device is in two windows at once, whoever writes them. A range of one text compares texts for equality, so
-- that no extension is needed.
create type text_range as range (subtype = text, collation = "C");
create table reserved_device (
    job_id text not null references reservation,
    offer_id text not null references offer,
    uuid text not null,
    during tstzrange not null,
    primary key (job_id, uuid),
    constraint reserved_device_once exclude using gist (
        text_range(offer_id || ' ' || uuid, offer_id || ' ' || uuid, '[]') with &&, during with &&
    )
);

create function reserve_devices() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        delete from reserved_device where job_id = new.job_id;
    end if;
    if new.state in ('booked', 'begun') then
        insert into reserved_device (job_id, offer_id, uuid, during)
        select new.job_id, new.offer_id, uuid, tstzrange(new.start_at, new.end_at)
        from unnest(new.devices) uuid;
    end if;
    return null;
end $$;
create trigger reserve_devices_first after insert on reservation
    for each row execute function reserve_devices();
create trigger reserve_devices after update of state, offer_id, devices, start_at, end_at on reservation
    for each row execute function reserve_devices();

-- The last guard; whoever grants a lease keeps off windows beforehand, and has its run prepared in time.
create function lease_keeps_off_windows() returns trigger language plpgsql as $$
begin
    if exists (
        select from reserved_device other
        where other.offer_id = new.offer_id and other.uuid = any (new.devices) and other.job_id <> new.job_id
            and other.during && tstzrange(
                new.granted_at, new.granted_at + make_interval(secs => new.max_duration_seconds))
    ) then
        raise exception 'a device of the lease % is reserved before it has ended', new.id
            using errcode = 'exclusion_violation';
    end if;
    return new;
end $$;
create trigger lease_keeps_off_windows before insert on lease
    for each row when (cardinality(new.devices) > 0) execute function lease_keeps_off_windows();
create index reserved_device_of_offer on reserved_device (offer_id);

-- A window ends with its job, however that ends.
create function job_ends_reservation() returns trigger language plpgsql as $$
begin
    update reservation
    set state = case when state = 'begun' then 'ended' when new.state = 'cancelled' then 'cancelled' else 'lost' end
    where job_id = new.id and state in ('booked', 'begun');
    return null;
end $$;
create trigger job_ends_reservation after update of state on job
    for each row when (old.ended_at is null and new.ended_at is not null)
    execute function job_ends_reservation();
