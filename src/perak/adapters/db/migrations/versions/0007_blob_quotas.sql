-- Which node sent a blob, for its quota; and what it takes to find the blobs that no job refers to.
alter table blob add column node_id text references node;
create index blob_node on blob (node_id) where node_id is not null;
create index blob_digest on blob (digest);
create index blob_age on blob (created_at);
create index job_workdir on job (project_id, workdir_digest) where workdir_digest is not null;
create index run_outputs on run (project_id, (outputs->>'digest')) where outputs is not null;
