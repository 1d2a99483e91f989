"""Owners take machines back: renters of what runs there are told in time, and what is left is stopped.

A machine goes back when its owner drains it to a time, or when its offer ends (`available_until`). What is
promised is the offer's `reclaim_notice` of when the lease was granted: no run is stopped sooner than that
after its renter was told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from perak.app.effects import Effect, JobChanged
from perak.app.ports import Transaction
from perak.app.records import NodeRecord
from perak.app.reservations import Stop
from perak.domain.errors import InvalidInput
from perak.domain.units import format_duration

CAUSE = "reclaimed"
PER_ROUND_MAX = 100
"""Bounds one round's transaction; the next goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the renter of a live run is told: when the node goes back; None: that it no longer does."""

    job: str
    node_name: str
    at: datetime | None


class ReclaimStore(Protocol):
    async def plan(self, node: str, *, at: datetime | None) -> None:
        """The owner takes the node back then; None: not at all."""

    async def running(self, node: str) -> list[tuple[str, int]]:
        """(job, seconds of notice that it was promised) of the node's live leases."""
        ...

    async def tell(self, *, node: str | None, now: datetime, limit: int) -> list[Told]:
        """Note as told what is to be told now, of one node or (None) of all; each is returned once."""
        ...

    async def overstaying(self, *, now: datetime, limit: int) -> list[tuple[str, str, str]]:
        """(lease, job, node's name) of live runs whose machine is due back, told for as long as promised."""
        ...


async def plan(
    tx: Transaction, store: ReclaimStore, node: NodeRecord, *, within_seconds: int | None, now: datetime
) -> list[Effect]:
    """Set when a draining node goes back to its owner (None: at no time), and tell whose jobs run there.

    Raises InvalidInput where that is sooner than its offer promises those who run there now.
    """
    running = await store.running(node.id)
    notice = max((promised for _, promised in running), default=0)
    if within_seconds is not None and within_seconds < notice:
        raise InvalidInput(
            f"the offer of {node.name} promised {format_duration(notice)} of notice to jobs that run there: "
            "take it back then or later, or drain it without a time, so that they go on to their end"
        )
    at = None if within_seconds is None else now + timedelta(seconds=within_seconds)
    await store.plan(node.id, at=at)
    effects = await tell(tx, store, node=node.id, now=now)
    if at is None:
        detail = f"the owner drains {node.name}: no new work goes there, and this run goes on to its end"
        for job, _ in running:
            await tx.jobs.event(job, kind="state", detail=detail, now=now)
            effects.append(JobChanged(job))
    return effects


async def tell(
    tx: Transaction, store: ReclaimStore, *, now: datetime, node: str | None = None
) -> list[Effect]:
    """Tell renters what they don't know yet of when the machine of their run goes back."""
    effects: list[Effect] = []
    for each in await store.tell(node=node, now=now, limit=PER_ROUND_MAX):
        await tx.jobs.event(each.job, kind="warning", detail=words(each), now=now)
        effects.append(JobChanged(each.job))
    return effects


async def to_stop(store: ReclaimStore, *, now: datetime) -> list[Stop]:
    """What still runs on machines that are due back."""
    return [
        Stop(lease=lease, job=job, cause=CAUSE, detail=f"stopping: the owner takes {node_name} back now")
        for lease, job, node_name in await store.overstaying(now=now, limit=PER_ROUND_MAX)
    ]


def words(told: Told) -> str:
    """What the renter reads."""
    if told.at is None:
        return f"the owner takes {told.node_name} back no more; the run goes on to its end"
    return (
        f"the owner takes {told.node_name} back at {told.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC; a run that "
        "has not ended by then is stopped, and is run again elsewhere where the job's retry allows it"
    )
