"""Clear deferrable jobs together: a snapshot, a plan made elsewhere, and its re-check and commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from perak.app.effects import Effect
from perak.app.market import PAGE, PAGES_MAX, WorkloadStore, accepting, changed_by, grant_all, with_past
from perak.app.ports import Ids, Transaction
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.market.batch import Part, recheck, takes_part
from perak.domain.market.match import PendingJob
from perak.domain.offer import Offer

BIDS_MAX = 256
"""In one batch: each is held against every offer. The others wait for the next, or for the instant match."""


async def snapshot(tx: Transaction, *, workloads: WorkloadStore) -> tuple[list[PendingJob], list[Offer]]:
    """The jobs that take part, the oldest first, and the offers as they are; none of either without jobs."""
    jobs = await with_past(workloads, await _waiting(tx))
    return jobs, await accepting(tx) if jobs else []


async def commit(
    tx: Transaction,
    parts: Sequence[Part],
    *,
    new_id: Ids,
    now: datetime,
    workloads: WorkloadStore,
    grid: Grid = YEARLY_GRID,
) -> list[Effect]:
    """Grant what still holds of a plan, at its prices."""
    await tx.single("market")
    jobs = {job.id: job for job in await with_past(workloads, await _waiting(tx))}
    planned = recheck(parts, jobs, await accepting(tx), now=now, grid=grid)
    return changed_by(await grant_all(tx, planned, new_id=new_id, now=now, workloads=workloads))


async def _waiting(tx: Transaction) -> list[PendingJob]:
    found = [job for job in await tx.jobs.pending_deferrable(limit=PAGE * PAGES_MAX) if takes_part(job)]
    return found[:BIDS_MAX]
