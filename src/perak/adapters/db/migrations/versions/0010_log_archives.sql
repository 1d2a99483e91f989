-- Logs of ended runs lie compressed in the blob store: the first `log_bytes` of a run's log, as gzip members of
-- a fixed number of bytes each, which start at `starts` in the blob. Later bytes, if any, are chunks as before.
create table log_archive (
    run_id text primary key references run,
    project_id text not null references project,
    digest text not null,
    log_bytes bigint not null check (log_bytes > 0),
    starts bigint[] not null check (cardinality(starts) > 0)
);
create index log_archive_digest on log_archive (project_id, digest);
-- What is due is looked for in the order of the ends.
create index run_ended on run (ended_at, id) where ended_at is not null;
