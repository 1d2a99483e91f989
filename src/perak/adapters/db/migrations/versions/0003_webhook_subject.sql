-- What a message is of, within its event: each subject of a node is told so often at most.
alter table webhook_delivery add column subject text;
create index webhook_delivery_recent on webhook_delivery (webhook_id, event, created_at);
