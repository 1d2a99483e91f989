"""Wallets, their entries, and receipts."""

from __future__ import annotations

from typing import Any

from perak.domain.units import format_money
from perak.wire.api import EntryView, Receipt, ReceiptSummary, Wallet
from perak.wire.receipts import readable

WALLET = """
select wallet.posted - wallet.pending as available, wallet.pending as held, coalesce((
    select sum(amount) from transfer join account earnings on earnings.id = transfer.credit
    where earnings.kind = 'earnings' and earnings.project_id = $1 and phase in ('single', 'post')
), 0)::bigint as earned
from account wallet where wallet.kind = 'wallet' and wallet.project_id = $1
"""

# Only what moved money: a reservation and its release are not entries, they show as `held`.
ENTRIES = """
with own as (select id from account where project_id = $1)
select id, at, kind, amount, job_id, note from (
    (
        select id, at, kind, -amount as amount, job_id, note from transfer
        where debit in (select id from own) and phase in ('single', 'post')
            and ($2::bigint is null or id < $2)
        order by id desc limit $3
    ) union all (
        select id, at, kind, amount, job_id, note from transfer
        where credit in (select id from own) and phase in ('single', 'post')
            and ($2::bigint is null or id < $2)
        order by id desc limit $3
    )
) both_sides order by id desc limit $3
"""

RECEIPTS = """
select id, job_id as job, run_id as run, issued_at, cost, energy_joules, carbon_grams from receipt
where project_id = $1 and ($2::text is null or job_id = $2) and ($3::text is null or id < $3)
order by id desc limit $4
"""


async def get_wallet(connection: Any, *, project: str, currency: str) -> Wallet:
    row = await connection.fetchrow(WALLET, project)
    return Wallet(
        project=project,
        currency=currency,
        available=format_money(row["available"]),
        held=format_money(row["held"]),
        earned=format_money(row["earned"]),
    )


async def list_entries(connection: Any, *, project: str, before: int | None, limit: int) -> list[EntryView]:
    """What moved the project's money, newest first."""
    rows = await connection.fetch(ENTRIES, project, before, limit)
    return [_entry(row) for row in rows]


async def get_entry(connection: Any, id: int) -> EntryView:
    """The entry as the receiving project sees it."""
    row = await connection.fetchrow(
        "select id, at, kind, amount, job_id, note from transfer where id = $1", id
    )
    return _entry(row)


async def list_receipts(
    connection: Any, *, project: str, job: str | None, before: str | None, limit: int
) -> list[ReceiptSummary]:
    rows = await connection.fetch(RECEIPTS, project, job, before, limit)
    return [ReceiptSummary(**(dict(row) | {"cost": format_money(row["cost"])})) for row in rows]


async def get_receipt(connection: Any, id: str, *, project: str) -> Receipt | None:
    """A receipt; the renter's project and the provider's both may read it."""
    row = await connection.fetchrow(
        "select jws from receipt where id = $1 and $2 in (project_id, provider_project_id)",
        id,
        project,
    )
    return Receipt(receipt=readable(row["jws"]), jws=row["jws"]) if row else None


def _entry(row: Any) -> EntryView:
    return EntryView(
        id=str(row["id"]),
        at=row["at"],
        kind=row["kind"],
        amount=format_money(row["amount"]),
        job=row["job_id"],
        note=row["note"],
    )
