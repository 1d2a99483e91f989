-- When a lease's end should have been reported: how long its node could not be heard, or the exchange was
-- away, does not count; and a stop that was asked for moves the end forward.
alter table lease
    add column unheard_seconds double precision not null default 0 check (unheard_seconds >= 0),
    add column stop_asked_at timestamptz;
