-- How the escape checklist came out on a node, by digest, with the node's signed report; offers name it by their
-- tiers, a lease the one that it was granted on.
create table checklist (
    digest text not null,
    node_id text not null references node,
    tier text not null,
    document text not null,
    jws text not null,
    posted_at timestamptz not null,
    primary key (digest, node_id)
);
create index checklist_node on checklist (node_id, posted_at);
alter table lease add column checklist text;
