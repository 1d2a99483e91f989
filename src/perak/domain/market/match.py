"""Instant match: the oldest job first, each to the cheapest offer that fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from perak.domain.job import JobSpec
from perak.domain.market.feasible import fitting_devices, misfits, price_for
from perak.domain.offer import Offer
from perak.domain.outcome import hold_for


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """A queued job as the market sees it, in its order of arrival.

    `avoid`: nodes that just failed it. `held` and `available`: micro-units held for it, and what its wallet
    could add.
    """

    id: str
    project: str
    spec: JobSpec
    epoch: int
    attempts: int = 0
    avoid: tuple[str, ...] = ()
    held: int = 0
    available: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A proposed lease: a part of an offer, of the version the market saw, for a job at a firm price."""

    job: str
    offer: str
    offer_version: int
    node: str
    provider: str
    price: int
    devices: tuple[str, ...]
    devices_milli: int
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the market proposes. One applier re-checks it against the present and commits it."""

    assignments: tuple[Assignment, ...]


def instant_match(jobs: Iterable[PendingJob], offers: Sequence[Offer], *, now: datetime) -> Plan:
    """Assign each job, oldest first, to the cheapest fitting offer; ties go to the fullest one.

    Filling the fullest offer first keeps whole machines free for large jobs (best fit). A node that just
    failed the job is taken only where no other fits. A job whose project can't pay for it takes no part of an
    offer from those behind it.
    """
    free = {offer.id: offer for offer in offers}
    spent: defaultdict[str, int] = defaultdict(int)
    assignments = []
    for job in jobs:
        chosen = _cheapest(job, free.values(), now, left=job.available - spent[job.project])
        if chosen is not None:
            assignment = _assign(job, chosen)
            assignments.append(assignment)
            free[chosen.id] = _taken(chosen, assignment)
            spent[job.project] += _to_add(job, assignment.price, left=job.available - spent[job.project])
    return Plan(assignments=tuple(assignments))


def _cheapest(job: PendingJob, offers: Iterable[Offer], now: datetime, *, left: int) -> Offer | None:
    """The best fitting offer that the job's hold and what is `left` in its wallet pay for."""
    fitting = [
        (offer.node in job.avoid, price, offer.free_cpu_milli, offer.id, offer)
        for offer in offers
        if not misfits(job.spec, offer, now=now)
        and (price := price_for(job.spec, offer)) is not None
        and _to_add(job, price, left=left) <= left
    ]
    return min(fitting, key=lambda f: f[:4])[4] if fitting else None


def _to_add(job: PendingJob, price: int, *, left: int) -> int:
    """What the wallet must hold beyond what is held already, in micro-units.

    A max_cost was held in full at submission; what is left of it is all that later attempts may cost.
    """
    limits = job.spec.limits
    hold = hold_for(
        price=price,
        devices_milli=job.spec.resources.devices_milli,
        seconds=limits.duration_seconds,
        max_cost=None if limits.max_cost is None else job.held,
        available=job.held + left,
    )
    return max(0, hold.amount - job.held)


def _assign(job: PendingJob, offer: Offer) -> Assignment:
    wanted = job.spec.resources
    price = price_for(job.spec, offer)
    assert price is not None, "a fitting offer has a price"
    devices = fitting_devices(job.spec, offer.free_devices)[: wanted.gpu_count] if wanted.gpu_count else ()
    return Assignment(
        job=job.id,
        offer=offer.id,
        offer_version=offer.version,
        node=offer.node,
        provider=offer.provider,
        price=price,
        devices=tuple(d.uuid for d in devices),
        devices_milli=wanted.devices_milli,
        cpu_milli=wanted.cpu_milli,
        memory_bytes=wanted.memory_bytes,
        disk_bytes=wanted.disk_bytes,
    )


def _taken(offer: Offer, part: Assignment) -> Offer:
    return replace(
        offer,
        free_cpu_milli=offer.free_cpu_milli - part.cpu_milli,
        free_memory_bytes=offer.free_memory_bytes - part.memory_bytes,
        free_disk_bytes=offer.free_disk_bytes - part.disk_bytes,
        free_devices=tuple(d for d in offer.free_devices if d.uuid not in part.devices),
    )
