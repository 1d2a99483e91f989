"""The ledger: transfers between accounts. The schema's triggers keep balances and refuse what can't be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from perak.app.records import HeldFunds, SettledRun
from perak.domain.errors import InsufficientFunds, NotFound

UNRESOLVED = "(select done.id from transfer done where done.pending_id = hold.id) is null"
"""Of a transfer `hold`: nothing was posted or voided of it. A subquery of one value is looked up by index; as
`not exists` the planner may merge it with all that was ever resolved."""

HELD = f"""
select id, amount from transfer hold
where job_id = $1 and phase = 'pending' and {UNRESOLVED}
order by id
"""

HOLD = """
insert into transfer (at, phase, kind, debit, credit, amount, job_id)
select $4, 'pending', 'hold', wallet.id, escrow.id, $3, $2
from account wallet, account escrow
where wallet.kind = 'wallet' and wallet.project_id = $1 and escrow.kind = 'escrow'
"""

TRANSFERS = """
    insert into transfer (at, phase, kind, debit, credit, amount, pending_id, job_id, run_id)
    select $1, part.* from unnest($2::json[]) each, json_to_record(each) as part (phase text, kind text,
        debit bigint, credit bigint, amount bigint, pending bigint, job text, run text)
"""
"""$1 when, $2 each NewTransfer as JSON, in whose order wallets are locked."""

RELEASE = """
insert into transfer (at, phase, kind, debit, credit, amount, pending_id, job_id)
select $3, 'void', 'release', hold.debit, hold.credit, 0, hold.id, hold.job_id
from transfer hold where hold.id = any ($1) and hold.job_id = $2
order by hold.id
"""


@dataclass(frozen=True, slots=True)
class NewTransfer:
    phase: str
    kind: str
    debit: int
    credit: int
    amount: int
    pending: int | None
    job: str
    run: str | None
    """The run that is paid for; None: of a hold, which outlives it."""


class PgLedger:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def wallet_available(self, project: str) -> int:
        available: int | None = await self._db.fetchval(
            "select posted - pending from account where kind = 'wallet' and project_id = $1", project
        )
        return available or 0

    async def hold(self, *, project: str, job: str, amount: int, now: datetime) -> None:
        assert amount > 0
        try:
            async with self._db.transaction():  # a savepoint: a refusal must not end the caller's transaction
                held = await self._db.execute(HOLD, project, job, amount, now)
        except asyncpg.CheckViolationError:
            raise InsufficientFunds(
                "the wallet does not cover the hold; fund it with `perak wallet fund`"
            ) from None
        assert held == "INSERT 0 1", "every project has a wallet"

    async def held(self, job: str) -> list[HeldFunds]:
        return [
            HeldFunds(transfer=row["id"], amount=row["amount"]) for row in await self._db.fetch(HELD, job)
        ]

    async def release(self, *, job: str, held: Sequence[HeldFunds], now: datetime) -> None:
        if held:
            await self._db.execute(RELEASE, [h.transfer for h in held], job, now)

    async def fund(self, *, project: str, amount: int, note: str, now: datetime) -> int:
        transfer: int | None = await self._db.fetchval(
            """insert into transfer (at, phase, kind, debit, credit, amount, note)
            select $4, 'single', 'fund', external.id, wallet.id, $2, $3 from account external, account wallet
            where external.kind = 'external' and wallet.kind = 'wallet' and wallet.project_id = $1
            returning id""",
            project,
            amount,
            note,
            now,
        )
        if transfer is None:
            raise NotFound(f"there is no project {project}; `perak project ls` lists them")
        return transfer


def settlement_transfers(settled: SettledRun) -> list[NewTransfer]:
    """Capture the cost from what is held, pay provider and fee; free the rest, or hold it again."""
    to, money, keep = settled.facts.accounts, settled.money, not settled.job_ended
    job, run = settled.at.job.id, settled.at.run.id
    parts = capture_parts(settled.facts.held, money.cost)
    resolved = [(h, part) for h, part in zip(settled.facts.held, parts, strict=True) if part or not keep]
    made = []
    for hold, part in resolved:
        phase, kind = ("post", "capture") if part else ("void", "release")
        made.append(NewTransfer(phase, kind, to.wallet, to.escrow, part, hold.transfer, job, run))
    if money.payout:
        made.append(NewTransfer("single", "payout", to.escrow, to.earnings, money.payout, None, job, run))
    if money.fee:
        made.append(NewTransfer("single", "fee", to.escrow, to.fees, money.fee, None, job, run))
    rest = sum(hold.amount - part for hold, part in resolved)
    if keep and rest:
        made.append(NewTransfer("pending", "hold", to.wallet, to.escrow, rest, None, job, None))
    return made


def capture_parts(held: Sequence[HeldFunds], cost: int) -> list[int]:
    """How much of each hold to capture, the oldest first, so that the parts sum to `cost`."""
    parts = []
    for hold in held:
        parts.append(min(hold.amount, cost))
        cost -= parts[-1]
    assert cost == 0, "a cost is never more than what is held"
    return parts
