-- Settlements in less work for the database: each line here was the most costly part of one, or waited most.

-- Signed text hardly gets smaller: to compress it was 8% of the database's work in a settlement.
alter table receipt alter column jws set storage external, alter column payload set storage external;
alter table run alter column evidence_jws set storage external;

-- A lease that ends gives its part back to the offer when its transaction commits: last of all rows that a
-- settlement locks, and for the shortest time, as all leases of an offer meet there.
create function lease_gives_back() returns trigger language plpgsql as $$
begin
    update offer set used_cpu_milli = used_cpu_milli - old.cpu_milli,
        used_memory_bytes = used_memory_bytes - old.memory_bytes,
        used_disk_bytes = used_disk_bytes - old.disk_bytes
    where id = old.offer_id;
    return null;
end $$;
create constraint trigger lease_gives_back after update of state on lease
    deferrable initially deferred for each row
    when (old.state in ('active', 'suspected') and new.state in ('ended', 'fenced'))
    execute function lease_gives_back();

-- As before, but that accounts without a limit, which are sums, are not asked to change.
create or replace function transfer_apply() returns trigger language plpgsql as $$
declare
    reserved record;
    moved bigint := case when new.phase in ('single', 'post') then new.amount else 0 end;
    reserves bigint := 0;
begin
    if new.phase = 'pending' then
        reserves := new.amount;
    elsif new.phase in ('post', 'void') then
        select phase, debit, credit, amount into strict reserved from transfer where id = new.pending_id;
        if reserved.phase <> 'pending' or reserved.debit <> new.debit or reserved.credit <> new.credit then
            raise exception 'transfer % does not match the reservation that it resolves', new.pending_id
                using errcode = 'integrity_constraint_violation';
        end if;
        if new.amount > reserved.amount then
            raise exception 'transfer would post % of the % reserved', new.amount, reserved.amount
                using errcode = 'integrity_constraint_violation';
        end if;
        reserves := -reserved.amount;
    end if;
    update account set
        posted = posted + case when id = new.credit then moved else -moved end,
        pending = pending + case when id = new.debit then reserves else 0 end
    where id in (new.debit, new.credit) and limited;
    return new;
end $$;
