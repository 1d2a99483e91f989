-- What transfers refer to is looked up for all of a statement together, instead of locked for each of its rows by a
-- foreign key: those were fifteen of the twenty checks of a settlement. It can't go afterwards, as nobody may
-- delete it or change its id; accounts are guarded already (account_guard), but for being emptied.
alter table transfer
    drop constraint transfer_debit_fkey,
    drop constraint transfer_credit_fkey,
    drop constraint transfer_pending_id_fkey,
    drop constraint transfer_job_id_fkey,
    drop constraint transfer_run_id_fkey;

create trigger account_kept before truncate on account for each statement execute function refuse_change();
create trigger job_kept before delete or truncate on job for each statement execute function refuse_change();
create trigger job_id_kept before update of id on job for each statement execute function refuse_change();
create trigger run_kept before delete or truncate on run for each statement execute function refuse_change();
create trigger run_id_kept before update of id on run for each statement execute function refuse_change();

create function transfers_refer() returns trigger language plpgsql as $$
declare
    missing text;
begin
    -- A subquery of one value is looked up by index, whatever the planner believes of the tables.
    select format('%s %s', wanted.kind, wanted.id) into missing from (
        select 'account' as kind, id::text from (select debit as id from added union select credit from added) a
            where (select true from account where account.id = a.id) is null
        union all
        select 'job', id from (select distinct job_id as id from added where job_id is not null) j
            where (select true from job where job.id = j.id) is null
        union all
        select 'run', id from (select distinct run_id as id from added where run_id is not null) r
            where (select true from run where run.id = r.id) is null
    ) wanted limit 1;
    if missing is not null then
        raise exception 'transfer refers to the %, which is not there', missing using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;
create trigger transfers_refer after insert on transfer referencing new table as added
    for each statement execute function transfers_refer();
