-- How hot the parts of a node are: as it last said, which of them count as hot, and since when it is hot or
-- cool.
alter table node
    add column sensors jsonb,
    add column health_at timestamptz,
    add column hot text[] not null default '{}',
    add column heat_turned_at timestamptz;
