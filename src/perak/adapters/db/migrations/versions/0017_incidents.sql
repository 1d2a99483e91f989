-- What befalls a device between its inspections is an entry of its passport too; `incident` says what, so that the
-- same is not written twice within an hour.
alter table passport_entry
    add column incident text,
    drop constraint passport_entry_kind_check,
    add constraint passport_entry_kind_check check (kind in ('inspected', 'wiped', 'incident'));
create index passport_incident on passport_entry (device, at) where kind = 'incident';

-- When a standing's failures per hour were last counted: again after a lost run or an incident, and once a day.
alter table standing add column rated_at timestamptz not null default now();
create index run_lost on run (node_id, ended_at) where cause in ('node_lost', 'device_fault');
