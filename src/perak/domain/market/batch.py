"""Batch clearing: which waiting jobs bid for which offers, as numbers that a solver in another process takes.

Deferrable GPU jobs that name a bid take part: they said that they wait, and what a run may cost at most.
Each offer is a class of its own, so that whatever decides whether a job fits an offer is decided here, by the
rules of the instant match; the solver only weighs bids against asks. Its plan is checked again at its commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.market.defer import OPTIONS_MAX, PriceProfile, latest_wait
from perak.domain.market.expect import Expectation, class_model, devices_for
from perak.domain.market.feasible import price_for
from perak.domain.market.match import Assignment, PendingJob, View, ask_of, assigned, to_add
from perak.domain.offer import Offer
from perak.domain.units import SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid:
    """A job in the batch: whole GPUs, all on one offer. `rate`: micro-units per GPU-hour at most.

    `hours` is the longest that is expected at an offer that fits, or max_duration where nothing is known.
    `offers`: rows of the batch that fit it.
    """

    job: str
    gpus: int
    hours: float
    rate: int
    offers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """An offer in the batch: GPUs that are free, and its ask in micro-units per GPU-hour."""

    offer: str
    version: int
    gpus: int
    ask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the solver is given."""

    bids: tuple[Bid, ...]
    supply: tuple[Supply, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What it proposes: a job on an offer of that version, at micro-units per GPU-hour."""

    job: str
    offer: str
    version: int
    price: int


def takes_part(job: PendingJob) -> bool:
    """Whether the job waits for a batch: it is deferrable, wants whole GPUs, and names what it gives."""
    limits = job.spec.limits
    bids = limits.max_cost is not None or limits.max_price is not None
    # A value of its own bounds cost, carbon and delay together, which a price for a GPU-hour can't.
    bids = bids and job.spec.preference.value is None
    return job.spec.start is not None and job.spec.resources.gpu_count > 0 and bids


def waits_for_batch(job: PendingJob, *, now: datetime, seconds: float) -> bool:
    """Whether the instant match leaves the job to the batch: for its first `seconds`, within its window.

    Afterwards it is matched like any other, so that a clearing that fails delays nobody for longer.
    """
    if not takes_part(job) or job.submitted_at is None:
        return False
    waits = latest_wait(job.spec, now=now, submitted_at=job.submitted_at, needs_seconds=None)
    return waits > 0 and now - job.submitted_at < timedelta(seconds=seconds)


def make_batch(
    jobs: Sequence[PendingJob],
    offers: Sequence[Offer],
    *,
    now: datetime,
    grid: Grid = YEARLY_GRID,
    prices: PriceProfile | None = None,
) -> Batch:
    """The bids of those that would start now where they fit, and the offers that they bid for."""
    supply = tuple(
        Supply(offer=o.id, version=o.version, gpus=len(o.free_devices), ask=o.ask.price_gpu)
        for o in offers
        if o.ask.price_gpu is not None and o.free_devices
    )
    row = {each.offer: at for at, each in enumerate(supply)}
    left = {job.project: job.available for job in jobs}
    bids = []
    for job in jobs:
        if not takes_part(job):
            continue
        view = View(job, now=now, grid=grid)
        fitting = [o for o in offers if o.id in row and o.node not in job.avoid and view.admits(o)]
        if not fitting:
            continue
        liked = sorted(fitting, key=lambda o: (view.burden(o, ask_of(job.spec, o)), o.id))
        if view.verdict(liked[:OPTIONS_MAX], prices=prices).wait_seconds:
            continue
        # It bids for the class that it likes best: there time and carbon are alike, and only asks differ.
        fitting = [o for o in fitting if _class(job, o) == _class(job, liked[0])]
        hours = max(_hours(job, view.expected(o)) for o in fitting)
        rate = _rate(job, hours)
        within = tuple(row[o.id] for o in fitting if ask_of(job.spec, o) <= rate)
        more = to_add(job, price=rate, left=left[job.project])
        # A bid without the money for it would only drive up what others pay.
        if within and more <= left[job.project]:
            left[job.project] -= more
            gpus = job.spec.resources.gpu_count
            bids.append(Bid(job=job.id, gpus=gpus, hours=hours, rate=rate, offers=within))
    return Batch(bids=tuple(bids), supply=supply)


def recheck(
    parts: Sequence[Part],
    jobs: Mapping[str, PendingJob],
    offers: Sequence[Offer],
    *,
    now: datetime,
    grid: Grid = YEARLY_GRID,
) -> list[tuple[PendingJob, Offer, Assignment]]:
    """Those parts of a plan that still hold: same version of the offer, room, fit, and a price within both
    the ask and the bid. The others wait for the next batch."""
    free = {offer.id: offer for offer in offers}
    held = []
    for part in parts:
        job, offer = jobs.get(part.job), free.get(part.offer)
        if job is None or offer is None or offer.version != part.version or not takes_part(job):
            continue
        ask, most = price_for(job.spec, offer), job.spec.limits.max_price
        if ask is None or part.price < ask or (most is not None and part.price > most):
            continue
        if not View(job, now=now, grid=grid).admits(offer):
            continue
        found, left = assigned(job, offer, now=now)
        free[offer.id] = left
        held.append((job, offer, replace(found, price=part.price)))
    return held


def _rate(job: PendingJob, hours: float) -> int:
    """What the job gives for a GPU-hour at most; of a max_cost, what earlier attempts left of it counts."""
    limits, gpus = job.spec.limits, job.spec.resources.gpu_count
    rates = [] if limits.max_price is None else [limits.max_price]
    if limits.max_cost is not None:
        rates.append(int(job.held / (gpus * hours)))
    return min(rates)


def _class(job: PendingJob, offer: Offer) -> tuple[str, str]:
    return class_model(offer, devices_for(job.spec, offer) or ()), offer.ask.region


def _hours(job: PendingJob, expected: Expectation) -> float:
    most = job.spec.limits.duration_seconds
    seconds = most if expected.seconds is None else expected.seconds
    return max(1.0, min(seconds, most)) / SECONDS_PER_HOUR
