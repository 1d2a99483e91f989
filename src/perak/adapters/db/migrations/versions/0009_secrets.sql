-- Secrets of a project, sealed with the key of the exchange's secret file, and of a single job: the key to its work
-- folder. And what scopes a key: what it may change, until when; and when it was last seen.
create table secret (
    project_id text not null references project,
    name text not null check (length(name) between 1 and 64),
    sealed bytea not null,
    created_at timestamptz not null,
    changed_at timestamptz not null,
    primary key (project_id, name)
);
create table job_secret (
    job_id text not null references job,
    name text not null,
    sealed bytea not null,
    primary key (job_id, name)
);

alter table api_key add column scope text not null default 'full' check (scope in ('full', 'submit', 'read'));
alter table api_key add column expires_at timestamptz;
alter table api_key add column last_used_at timestamptz;

-- Who did what with keys, projects, money, secrets and nodes. No value of a secret or a key stands here.
create table trail (
    seq bigint generated always as identity primary key,
    at timestamptz not null,
    project_id text not null references project,
    key_id text not null references api_key,
    address text not null,
    action text not null,
    subject text not null,
    subject_project_id text,
    outcome text not null
);
create index trail_project on trail (project_id, seq desc);
create trigger trail_append_only before update or delete or truncate on trail
    for each statement execute function refuse_change();
