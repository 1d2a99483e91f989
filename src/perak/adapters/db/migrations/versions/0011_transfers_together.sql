-- The transfers of one statement are checked and applied together. A row at a time was a third of a settlement's
-- work for the database; what is refused is the same, of balances as they are after the statement.
drop trigger transfer_apply on transfer;
drop function transfer_apply();

create function transfers_apply() returns trigger language plpgsql as $$
declare
    wrong text;
begin
    select case
        when reserved.id is null then format('transfer %s does not match the reservation that it resolves', added.pending_id)
        else format('transfer would post %s of the %s reserved', added.amount, reserved.amount) end
    into wrong
    from added left join lateral (
        select id, amount from transfer
        where id = added.pending_id and phase = 'pending' and debit = added.debit and credit = added.credit
    ) reserved on true
    where added.pending_id is not null and (reserved.id is null or added.amount > reserved.amount)
    limit 1;
    if wrong is not null then
        raise exception '%', wrong using errcode = 'integrity_constraint_violation';
    end if;
    -- Wallets are locked in the order of their projects. The other accounts are sums and have nothing to change.
    with change as materialized (
        select part.account, sum(part.posted)::bigint as posted, sum(part.pending)::bigint as pending
        from added
        left join lateral (select amount from transfer where id = added.pending_id) reserved on true
        cross join lateral (values
            (debit, case when phase in ('single', 'post') then -added.amount else 0 end,
                case when phase = 'pending' then added.amount else -coalesce(reserved.amount, 0) end),
            (credit, case when phase in ('single', 'post') then added.amount else 0 end, 0)
        ) as part (account, posted, pending)
        group by part.account
    ), wallet as materialized (
        select account.id, change.posted, change.pending
        from change join account on account.id = change.account
        where account.limited
        order by account.project_id
        for no key update of account
    )
    update account set posted = account.posted + wallet.posted, pending = account.pending + wallet.pending
    from wallet where account.id = wallet.id;
    return null;
end $$;
create trigger transfers_apply after insert on transfer referencing new table as added
    for each statement execute function transfers_apply();
