"""Clear the market: a snapshot, a plan by the domain, and one applier that re-checks and commits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import LeaseRecord, NewLease
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.errors import InsufficientFunds
from perak.domain.lifecycle import JOB
from perak.domain.market.batch import waits_for_batch
from perak.domain.market.considered import Considered, considered
from perak.domain.market.defer import PriceProfile
from perak.domain.market.expect import devices_for, place_of
from perak.domain.market.history import Past, fingerprint
from perak.domain.market.match import Assignment, PendingJob, hold_of, instant_match
from perak.domain.market.predict import Prediction, predict
from perak.domain.offer import Offer, OfferAsk
from perak.domain.outcome import affordable_seconds
from perak.domain.units import format_money

PAGE = 64
"""Queued jobs looked at in one step: decoding them is what a round costs."""
PAGES_MAX = 16
"""A round ends after this many pages, so that its transaction stays short; the next goes on."""


class WorkloadStore(Protocol):
    """What workloads did before, and what was foretold of runs."""

    async def past(self, fingerprints: Sequence[str], *, project: str) -> dict[str, tuple[Past, ...]]: ...
    async def keep_forecast(self, lease: str, foretold: Prediction, *, now: datetime) -> None: ...
    async def keep_considered(self, kept: Mapping[str, Sequence[Considered]], *, now: datetime) -> None: ...


async def clear(
    tx: Transaction,
    *,
    new_id: Ids,
    now: datetime,
    workloads: WorkloadStore | None = None,
    grid: Grid = YEARLY_GRID,
    prices: PriceProfile | None = None,
    batch_wait_seconds: float = 0.0,
) -> list[Effect]:
    """Match the queued jobs to the free parts of open offers and grant the leases.

    `workloads`: where earlier runs are known from; None: nothing is foretold. `prices`: what hours of the day
    cost, for jobs that may wait. `batch_wait_seconds`: how long those that bid are left to the batches.
    """
    await tx.single("market")
    if not await tx.jobs.any_pending():
        return []  # Reading thousands of offers for nobody is what an idle fleet would cost.
    offers = await accepting(tx)
    effects: list[Effect] = []
    after: str | None = None
    for _ in range(PAGES_MAX):
        if not _some_free(offers):
            return effects
        jobs = await tx.jobs.pending(after=after, limit=PAGE)
        ours = [job for job in jobs if not waits_for_batch(job, now=now, seconds=batch_wait_seconds)]
        known = ours if workloads is None else await with_past(workloads, ours)
        granted = await _match_page(
            tx, known, offers, new_id=new_id, now=now, workloads=workloads, grid=grid, prices=prices
        )
        effects += changed_by(granted)
        if len(jobs) < PAGE:
            return effects
        after = jobs[-1].id
        if granted:
            offers = await accepting(tx)
    return [*effects, MarketChanged()]


async def accepting(tx: Transaction) -> list[Offer]:
    """The open offers of nodes that take work now."""
    return [offer for offer in await tx.offers.all_open() if offer.accepting]


def changed_by(granted: Sequence[Assignment]) -> list[Effect]:
    """Who has to know of leases that were granted."""
    return [effect for part in granted for effect in (NodeChanged(part.node), JobChanged(part.job))]


def _some_free(offers: list[Offer]) -> bool:
    return any(o.free_cpu_milli > 0 and o.free_memory_bytes > 0 for o in offers)


async def with_past(workloads: WorkloadStore, jobs: Sequence[PendingJob]) -> list[PendingJob]:
    """The jobs with what their workloads did before, which is one look for each project."""
    prints = {job.id: fingerprint(job.spec) for job in jobs}
    found: dict[str, tuple[Past, ...]] = {}
    for project in {job.project for job in jobs}:
        own = {prints[job.id]: job.id for job in jobs if job.project == project}
        past = await workloads.past(list(own), project=project)
        found |= {job.id: past.get(prints[job.id], ()) for job in jobs if job.project == project}
    return [replace(job, past=found[job.id]) if found[job.id] else job for job in jobs]


async def _match_page(
    tx: Transaction,
    jobs: list[PendingJob],
    offers: list[Offer],
    *,
    new_id: Ids,
    now: datetime,
    workloads: WorkloadStore | None,
    grid: Grid,
    prices: PriceProfile | None,
) -> list[Assignment]:
    by_id = {job.id: job for job in jobs}
    by_offer = {offer.id: offer for offer in offers}
    plan = instant_match(jobs, offers, now=now, grid=grid, prices=prices)
    planned = [(by_id[part.job], by_offer[part.offer], part) for part in plan.assignments]

    def beside(job: PendingJob, chosen: Offer) -> Sequence[Considered]:
        return considered(job, chosen, offers, now=now, grid=grid)

    return await grant_all(tx, planned, new_id=new_id, now=now, workloads=workloads, beside=beside)


async def grant_all(
    tx: Transaction,
    planned: Sequence[tuple[PendingJob, Offer, Assignment]],
    *,
    new_id: Ids,
    now: datetime,
    workloads: WorkloadStore | None,
    beside: Callable[[PendingJob, Offer], Sequence[Considered]] | None = None,
) -> list[Assignment]:
    """Fund and grant a plan; those parts that could be had. `beside`: what else a job might have had."""
    # Wallets first, by project, then offers: settlements lock them in this order too.
    by_wallet = sorted(planned, key=lambda each: each[0].project)
    funded = {job.id: await _fund(tx, job, part, now=now) for job, _, part in by_wallet}
    granted, kept = [], dict[str, Sequence[Considered]]()
    for job, offer, part in planned:
        funding = funded[job.id]
        if funding is None:
            continue
        lease = await _grant(tx, job, part, funding, ask=offer.ask, new_id=new_id, now=now)
        if lease is None:
            continue
        granted.append(part)
        if workloads is not None:
            await _foretell(workloads, lease, job, offer, now=now)
        if beside is not None:
            kept[lease] = beside(job, offer)
    if workloads is not None and kept:
        await workloads.keep_considered(kept, now=now)
    return granted


async def _foretell(
    workloads: WorkloadStore, lease: str, job: PendingJob, offer: Offer, *, now: datetime
) -> None:
    """Keep what is expected of the run, to be held against what it takes."""
    if job.spec.work is None and not job.past:
        return
    place = place_of(job.spec, offer, devices_for(job.spec, offer) or ())
    foretold = predict(job.spec, place, past=job.past)
    if foretold is not None:
        await workloads.keep_forecast(lease, foretold, now=now)


async def grant_part(
    tx: Transaction,
    job: PendingJob,
    part: Assignment,
    *,
    offer: Offer,
    new_id: Ids,
    now: datetime,
    workloads: WorkloadStore | None = None,
) -> bool:
    """Fund and grant one lease; False where the offer can't be had now. Raises InsufficientFunds."""
    funding = await _fund(tx, job, part, now=now)
    if funding is None:
        raise InsufficientFunds(
            f"the wallet does not cover the job at {format_money(part.price)} per device-hour; fund it with "
            "`perak wallet fund`, or lower max_cost or max_duration"
        )
    lease = await _grant(tx, job, part, funding, ask=offer.ask, new_id=new_id, now=now)
    if lease is not None and workloads is not None:
        await _foretell(workloads, lease, job, offer, now=now)
    return lease is not None


async def grant_window(
    tx: Transaction,
    job: PendingJob,
    part: Assignment,
    *,
    seconds: int,
    ask: OfferAsk,
    new_id: Ids,
    now: datetime,
) -> bool:
    """Grant a lease in a window that is held in full, for what is left of it; False: it can't be had now."""
    funding = seconds, "max_duration", "full"
    return await _grant(tx, job, part, funding, ask=ask, new_id=new_id, now=now) is not None


async def _grant(
    tx: Transaction,
    job: PendingJob,
    part: Assignment,
    funding: tuple[int, str, str],
    *,
    ask: OfferAsk,
    new_id: Ids,
    now: datetime,
) -> str | None:
    """Grant the funded lease; None where the offer has changed since the snapshot: the job waits on."""
    duration, limited_by, mode = funding
    left = ask.seconds_left(now=now)
    duration = duration if left is None else max(1, min(duration, left))
    tier = ask.tier_for(job.spec.isolation, with_devices=bool(part.devices))
    lease = LeaseRecord(
        id=new_id("lease"),
        job=job.id,
        project=job.project,
        offer=part.offer,
        offer_version=part.offer_version,
        node=part.node,
        provider=part.provider,
        epoch=job.epoch + 1,
        state="active",
        price=part.price,
        devices_milli=part.devices_milli,
        devices=part.devices,
        cpu_milli=part.cpu_milli,
        memory_bytes=part.memory_bytes,
        disk_bytes=part.disk_bytes,
        max_duration_seconds=duration,
        duration_limited_by=limited_by,
        stop_cause=None,
        granted_at=now,
        checklist=ask.sandbox(tier).checklist or None,
    )
    assert JOB.allows("queued", "leased")
    new = NewLease(lease=lease, run=new_id("run"), attempt=job.attempts + 1)
    return lease.id if await tx.leases.grant(new, hold_mode=mode, now=now) else None


async def _fund(
    tx: Transaction, job: PendingJob, part: Assignment, *, now: datetime
) -> tuple[int, str, str] | None:
    """(longest duration in seconds, what limits it, hold mode), the hold brought up to the firm price.

    None where the wallet does not cover it.
    """
    limits, held = job.spec.limits, job.held
    hold = hold_of(job, price=part.price, left=job.available)
    if hold.amount > held:
        try:
            await tx.ledger.hold(project=job.project, job=job.id, amount=hold.amount - held, now=now)
        except InsufficientFunds:
            return None
    duration = limits.duration_seconds
    if limits.max_cost is not None:
        bought = affordable_seconds(price=part.price, devices_milli=part.devices_milli, budget=held)
        if bought is not None and bought < duration:
            return max(1, bought), "max_cost", hold.mode
    return duration, "max_duration", hold.mode
