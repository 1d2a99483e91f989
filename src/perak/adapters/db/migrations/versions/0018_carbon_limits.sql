-- What a job's runs have to be brought by the exchange: its work folder and the outputs of earlier jobs.
alter table job add column brought_bytes bigint not null default 0 check (brought_bytes >= 0);

-- What a run may have drawn in all while its node is cut off, so that the job keeps its max_carbon.
alter table lease add column joules_max float8 check (joules_max >= 0);
