"""The ledger: transfers between accounts. The schema's triggers keep balances and refuse what can't be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from perak.app.records import HeldFunds
from perak.domain.errors import InsufficientFunds, NotFound
from perak.domain.outcome import Settlement

HELD = """
select id, amount from transfer hold
where job_id = $1 and phase = 'pending'
    and not exists (select from transfer done where done.pending_id = hold.id)
order by id
"""

HOLD = """
insert into transfer (at, phase, kind, debit, credit, amount, job_id)
select $4, 'pending', 'hold', wallet.id, escrow.id, $3, $2
from account wallet, account escrow
where wallet.kind = 'wallet' and wallet.project_id = $1 and escrow.kind = 'escrow'
"""

RESOLVE = """
insert into transfer (at, phase, kind, debit, credit, amount, pending_id, job_id, run_id)
select $5, case when part.amount > 0 then 'post' else 'void' end,
    case when part.amount > 0 then 'capture' else 'release' end,
    hold.debit, hold.credit, part.amount, hold.id, hold.job_id, $4
from unnest($1::bigint[], $2::bigint[]) as part (id, amount) join transfer hold on hold.id = part.id
where hold.job_id = $3
order by hold.id
"""

PAY = """
insert into transfer (at, phase, kind, debit, credit, amount, job_id, run_id)
select $6, 'single', part.kind, escrow.id, receiver.id, part.amount, $4, $5
from (values ('payout', 'earnings', $1::text, $2::bigint), ('fee', 'fees', null, $3::bigint))
        as part (kind, receiver, project, amount)
    join account escrow on escrow.kind = 'escrow'
    join account receiver on receiver.kind = part.receiver
        and receiver.project_id is not distinct from part.project
where part.amount > 0
"""


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

    async def settle(
        self,
        *,
        project: str,
        provider: str,
        job: str,
        run: str,
        held: Sequence[HeldFunds],
        settlement: Settlement,
        keep: bool,
        now: datetime,
    ) -> None:
        parts = capture_parts(held, settlement.cost)
        if keep:
            await self._keep_rest(project=project, job=job, run=run, held=held, parts=parts, now=now)
        else:
            await self._resolve(held, parts, job=job, run=run, now=now)
        if settlement.cost:
            paid = await self._db.execute(PAY, provider, settlement.payout, settlement.fee, job, run, now)
            parts_paid = (settlement.payout > 0) + (settlement.fee > 0)
            assert paid == f"INSERT 0 {parts_paid}", "every provider has an account for earnings"

    async def _keep_rest(
        self,
        *,
        project: str,
        job: str,
        run: str,
        held: Sequence[HeldFunds],
        parts: Sequence[int],
        now: datetime,
    ) -> None:
        """Capture from the holds that the cost needs, and hold again what those had beyond it."""
        used = [(h, part) for h, part in zip(held, parts, strict=True) if part]
        await self._resolve([h for h, _ in used], [part for _, part in used], job=job, run=run, now=now)
        rest = sum(h.amount - part for h, part in used)
        if rest:
            await self.hold(project=project, job=job, amount=rest, now=now)

    async def release(self, *, project: str, job: str, held: Sequence[HeldFunds], now: datetime) -> None:
        await self._resolve(held, [0] * len(held), job=job, run=None, now=now)

    async def _resolve(
        self, held: Sequence[HeldFunds], parts: Sequence[int], *, job: str, run: str | None, now: datetime
    ) -> None:
        if held:
            await self._db.execute(RESOLVE, [h.transfer for h in held], list(parts), job, run, now)

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


def capture_parts(held: Sequence[HeldFunds], cost: int) -> list[int]:
    """How much of each hold to capture, the oldest first, so that the parts sum to `cost`."""
    parts = []
    for hold in held:
        parts.append(min(hold.amount, cost))
        cost -= parts[-1]
    assert cost == 0, "a cost is never more than what is held"
    return parts
