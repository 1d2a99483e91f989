"""Keep a job's max_carbon while it runs: by its metered energy and the grid's hours."""

from __future__ import annotations

from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect, JobChanged, NodeChanged
from perak.app.ports import Transaction
from perak.app.records import Engagement
from perak.domain.carbon.budget import STOP, WARN, judge_budget
from perak.domain.carbon.counting import operational
from perak.domain.carbon.placement import Grid
from perak.domain.offer import Offer
from perak.domain.report import CAUSES, Metered


async def watch_carbon(
    tx: Transaction, at: Engagement, body: Metered, *, context: Context, now: datetime
) -> list[Effect]:
    """Warn the renter on the way, and stop the run before the budget is crossed."""
    budget = at.job.spec.limits.max_carbon_grams
    if budget is None or at.run.started_at is None or at.lease.stop_cause:
        return []
    offer = await tx.offers.of_node(at.lease.node)
    if offer is None:
        return []
    previous = at.run.evidence
    started_ms = int(at.run.started_at.timestamp() * 1000)
    earlier = await tx.settlements.emitted(at.job.id)
    grams = _grams(at, body, offer, context.grid.now)
    told = judge_budget(
        budget_grams=budget,
        before=0.0 if previous is None else _grams(at, previous, offer, context.grid.now),
        now=grams,
        seconds_between=(body.until - (started_ms if previous is None else previous.until)) / 1000,
        earlier=earlier,
    )
    total = f"{earlier + grams:.3g} g of {budget:g} g CO2e"
    if told == STOP:
        await tx.leases.ask_stop(at.lease.id, cause="max_carbon", now=now)
        # A budget smaller than what is emitted until the first reading can't be kept, and is not said to be.
        passed = earlier + grams > budget
        reason = "the job has passed its max_carbon" if passed else CAUSES["max_carbon"]
        detail = f"stopping: {reason}; {total} are emitted"
        await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
        return [NodeChanged(at.lease.node), JobChanged(at.job.id)]
    if told == WARN:
        detail = f"{total} are emitted; the job is stopped before it passes its max_carbon"
        await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
        return [JobChanged(at.job.id)]
    return []


def _grams(at: Engagement, evidence: Metered, offer: Offer, grid: Grid) -> float:
    """As the receipt would count it now."""
    assert at.run.started_at is not None
    start = at.run.started_at.timestamp()
    return operational(
        evidence.energy_joules,
        hours=evidence.energy_hours,
        start=start,
        seconds=max(0.0, evidence.until / 1000 - start),
        region=offer.ask.region,
        grid=grid,
    ).grams
