"""Instant match: the oldest job first, each to the cheapest offer that fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from operator import itemgetter

from perak.domain.job import JobSpec, Resources
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
    unmet: set[Demand] = set()
    assignments = []
    for job in jobs:
        if (demand := _demand(job.spec)) in unmet:
            continue
        fitting = (o for o in _ranked(job, free.values()) if not misfits(job.spec, o, now=now))
        cheapest = next(fitting, None)
        if cheapest is None:
            unmet.add(demand)  # What is free only shrinks, so nobody who asks for the same can have it.
            continue
        left = job.available - spent[job.project]
        chosen = next((o for o in chain([cheapest], fitting) if _to_add(job, o, left=left) <= left), None)
        if chosen is not None:
            spent[job.project] += _to_add(job, chosen, left=left)
            assignments.append(_assign(job, chosen))
            free[chosen.id] = _taken(chosen, assignments[-1])
    return Plan(assignments=tuple(assignments))


Demand = tuple[Resources, str | None, int | None]
"""All of a job that decides whether an offer fits it: resources, version of Python, max_price."""


def _demand(spec: JobSpec) -> Demand:
    python = None if spec.python is None else spec.python.version
    return spec.resources, python, spec.limits.max_price


def _ranked(job: PendingJob, offers: Iterable[Offer]) -> list[Offer]:
    """The offers that have a price for the job, the best first, whether they fit or not."""
    priced = [
        (offer.node in job.avoid, price, offer.free_cpu_milli, offer.id, offer)
        for offer in offers
        if (price := price_for(job.spec, offer)) is not None
    ]
    return [offer for *_, offer in sorted(priced, key=itemgetter(0, 1, 2, 3))]


def _to_add(job: PendingJob, offer: Offer, *, left: int) -> int:
    """What the wallet must hold beyond what is held already, in micro-units.

    A max_cost was held in full at submission; what is left of it is all that later attempts may cost.
    """
    limits = job.spec.limits
    price = price_for(job.spec, offer)
    assert price is not None, "a fitting offer has a price"
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
    fitting = fitting_devices(job.spec, offer.free_devices, offer.ask.torch_variants)
    devices = fitting[: wanted.gpu_count] if wanted.gpu_count else ()
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
