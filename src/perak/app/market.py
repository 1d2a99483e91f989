"""Clear the market: a snapshot, a plan by the domain, and one applier that re-checks and commits it."""

from __future__ import annotations

from datetime import datetime

from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import LeaseRecord, NewLease
from perak.domain.errors import InsufficientFunds
from perak.domain.lifecycle import JOB
from perak.domain.market.match import Assignment, PendingJob, instant_match
from perak.domain.offer import Offer, OfferAsk
from perak.domain.outcome import affordable_seconds, hold_for

PAGE = 64
"""Queued jobs looked at in one step: decoding them is what a round costs."""
PAGES_MAX = 16
"""A round ends after this many pages, so that its transaction stays short; the next goes on."""


async def clear(tx: Transaction, *, new_id: Ids, now: datetime) -> list[Effect]:
    """Match the queued jobs to the free parts of open offers and grant the leases."""
    await tx.single("market")
    if not await tx.jobs.any_pending():
        return []  # Reading thousands of offers for nobody is what an idle fleet would cost.
    offers = [o for o in await tx.offers.all_open() if o.accepting]
    effects: list[Effect] = []
    after: str | None = None
    for _ in range(PAGES_MAX):
        if not _some_free(offers):
            return effects
        jobs = await tx.jobs.pending(after=after, limit=PAGE)
        granted = await _match_page(tx, jobs, offers, new_id=new_id, now=now)
        effects += [e for a in granted for e in (NodeChanged(a.node), JobChanged(a.job))]
        if len(jobs) < PAGE:
            return effects
        after = jobs[-1].id
        if granted:
            offers = [o for o in await tx.offers.all_open() if o.accepting]
    return [*effects, MarketChanged()]


def _some_free(offers: list[Offer]) -> bool:
    return any(o.free_cpu_milli > 0 and o.free_memory_bytes > 0 for o in offers)


async def _match_page(
    tx: Transaction, jobs: list[PendingJob], offers: list[Offer], *, new_id: Ids, now: datetime
) -> list[Assignment]:
    by_id = {job.id: job for job in jobs}
    asks = {offer.id: offer.ask for offer in offers}
    plan = instant_match(jobs, offers, now=now)
    # Wallets first, by project, then offers: settlements lock them in this order too.
    by_wallet = sorted(plan.assignments, key=lambda part: by_id[part.job].project)
    funded = {part.job: await _fund(tx, by_id[part.job], part, now=now) for part in by_wallet}
    return [
        part
        for part in plan.assignments
        if (funding := funded[part.job]) is not None
        and await _grant(tx, by_id[part.job], part, funding, ask=asks[part.offer], new_id=new_id, now=now)
    ]


async def _grant(
    tx: Transaction,
    job: PendingJob,
    part: Assignment,
    funding: tuple[int, str, str],
    *,
    ask: OfferAsk,
    new_id: Ids,
    now: datetime,
) -> bool:
    """Grant the funded lease; False where the offer has changed since the snapshot: the job waits on."""
    duration, limited_by, mode = funding
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
    return await tx.leases.grant(new, hold_mode=mode, now=now)


async def _fund(
    tx: Transaction, job: PendingJob, part: Assignment, *, now: datetime
) -> tuple[int, str, str] | None:
    """(longest duration in seconds, what limits it, hold mode), the hold brought up to the firm price.

    None where the wallet does not cover it.
    """
    limits = job.spec.limits
    held = job.held
    hold = hold_for(
        price=part.price,
        devices_milli=part.devices_milli,
        seconds=limits.duration_seconds,
        # max_cost was held at submit and covers every attempt: what is left of it is what is held now.
        max_cost=None if limits.max_cost is None else held,
        available=held + job.available,
    )
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
