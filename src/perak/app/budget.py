"""Keep a job's max_carbon: refuse what can't be kept, and watch runs by their energy and the grid's hours."""

from __future__ import annotations

import math
from datetime import datetime

from perak.app.context import Context
from perak.app.effects import Effect, JobChanged, NodeChanged
from perak.app.ports import Transaction
from perak.app.records import Engagement
from perak.domain.carbon.budget import (
    ALLOWED_ANEW_SECONDS,
    KEEPABLE_SECONDS,
    STOP,
    WARN,
    WATTS_PER_CORE_MAX,
    WATTS_PER_GPU_MAX,
    joules_allowed,
    judge_budget,
    least_keepable_grams,
)
from perak.domain.carbon.counting import operational
from perak.domain.carbon.placement import Grid
from perak.domain.carbon.signal import GRAMS_PER_KWH_MAX
from perak.domain.errors import InvalidInput
from perak.domain.job import JobSpec
from perak.domain.market.expect import expect, least_grams
from perak.domain.market.feasible import misfits
from perak.domain.offer import Offer
from perak.domain.report import CAUSES, Metered


async def check_max_carbon(tx: Transaction, spec: JobSpec, *, grid: Grid, now: datetime) -> None:
    """Raises InvalidInput where offers fit and none could keep it; else the market judges, offer by offer."""
    most = spec.limits.max_carbon_grams
    if most is None or most >= _kept_anywhere_grams(spec):
        return
    fitting = [
        offer
        for offer in await tx.offers.all_open()
        if all(each.now_only for each in misfits(spec, offer, now=now))
    ]
    expected = [expect(spec, offer, grid=grid, start=now.timestamp()) for offer in fitting]
    least = [grams for each in expected if (grams := least_grams(each)) is not None]
    if least and len(least) == len(fitting) and min(least) > most:
        smallest = math.ceil(min(least) * 1000) / 1000
        raise InvalidInput(
            f"limits.max_carbon of {most:g} g can't be kept: until a run could be stopped "
            f"({KEEPABLE_SECONDS:g} s) it emits more on every offer that fits. The smallest that can be kept "
            f"now is {smallest:g} g",
            code="max_carbon_too_small",
        )


def _kept_anywhere_grams(spec: JobSpec) -> float:
    wanted = spec.resources
    watts = WATTS_PER_GPU_MAX * wanted.gpu_count + WATTS_PER_CORE_MAX * wanted.cpu_milli / 1000
    return least_keepable_grams(watts=watts, grams_per_kwh=GRAMS_PER_KWH_MAX)


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
        budget=budget,
        before=0.0 if previous is None else _grams(at, previous, offer, context.grid.now),
        now=grams,
        seconds_between=(body.until - (started_ms if previous is None else previous.until)) / 1000,
        earlier=earlier,
    )
    total = f"{earlier + grams:.3g} g of {budget:g} g CO2e"
    if told == STOP:
        await tx.leases.ask_stop(at.lease.id, cause="max_carbon", now=now)
        # Drawing far more than was expected of it, it may have passed before anybody could know.
        passed = earlier + grams > budget
        reason = "the job has passed its max_carbon" if passed else CAUSES["max_carbon"]
        detail = f"stopping: {reason}; {total} are emitted"
        await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
        return [NodeChanged(at.lease.node), JobChanged(at.job.id)]
    if told == WARN:
        detail = f"{total} are emitted; the job is stopped before it passes its max_carbon"
        await tx.jobs.event(at.job.id, kind="warning", detail=detail, now=now)
    effects: list[Effect] = [JobChanged(at.job.id)] if told == WARN else []
    if previous is not None and _is_due(previous, body):
        worst = context.grid.now.worst(offer.ask.region, now=now.timestamp())
        allowed = joules_allowed(
            left_grams=budget - earlier - grams, worst_grams_per_kwh=worst, drawn_joules=body.energy_joules
        )
        await tx.leases.allow(at.lease.id, joules_max=allowed)
        effects.append(NodeChanged(at.lease.node))
    return effects


def _is_due(previous: Metered, body: Metered) -> bool:
    """Whether to count anew, between these two, what the node may draw while nobody can be asked."""
    every_ms = ALLOWED_ANEW_SECONDS * 1000
    return previous.until // every_ms != body.until // every_ms


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
