"""Instant match: the oldest job first, each to the offer that fits and that its renter likes best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from operator import itemgetter

from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.job import JobSpec
from perak.domain.market.defer import OPTIONS_MAX, Option, PriceProfile, Verdict, decide
from perak.domain.market.expect import Expectation, devices_for, expect, outlook, place_of, unacceptable
from perak.domain.market.feasible import fitting_devices, misfits, price_for
from perak.domain.market.history import Past
from perak.domain.market.utility import burden, is_cheapest
from perak.domain.market.windows import in_window, left_until, run_until
from perak.domain.offer import Offer
from perak.domain.outcome import Hold, hold_for


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
    past: tuple[Past, ...] = ()
    """What its workload did before; empty: nothing is known, or nothing depends on it."""
    submitted_at: datetime | None = None
    brought_bytes: int = 0
    """What a run of it has to be brought by the exchange."""
    emitted_grams: float = 0.0
    """What its earlier runs emitted, which is off its max_carbon."""


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


def instant_match(
    jobs: Iterable[PendingJob],
    offers: Sequence[Offer],
    *,
    now: datetime,
    grid: Grid = YEARLY_GRID,
    prices: PriceProfile | None = None,
) -> Plan:
    """Assign each job, oldest first, to the fitting offer that its preference likes best: the cheapest unless
    it says otherwise. Ties go to the fullest offer.

    Filling the fullest offer first keeps whole machines free for large jobs (best fit). A node that just
    failed the job is taken only where no other fits. A job whose project can't pay for it takes no part of an
    offer from those behind it. A deferrable job is left out while a later start is expected to be better, by
    `grid` and by what hours of the day cost (`prices`).
    """
    free = {offer.id: offer for offer in offers}
    spent: defaultdict[str, int] = defaultdict(int)
    unmet: set[Demand] = set()
    assignments = []
    for job in jobs:
        if (demand := _demand(job)) in unmet:
            continue
        view = View(job, now=now, grid=grid)
        fitting: Iterator[Offer] = (o for o in _ranked(job, free.values(), view) if view.admits(o))
        cheapest = next(fitting, None)
        if cheapest is None:
            unmet.add(demand)  # What is free only shrinks, so nobody who asks for the same can have it.
            continue
        if job.spec.start is not None:
            fitting = chain([cheapest], fitting)
            first = list(islice(fitting, OPTIONS_MAX))
            if view.verdict(first, prices=prices).wait_seconds:
                continue
            cheapest, fitting = first[0], chain(first[1:], fitting)
        left = job.available - spent[job.project]
        for offer in chain([cheapest], fitting):
            more = to_add(job, price=ask_of(job.spec, offer), left=left)
            if more <= left:
                spent[job.project] += more
                part, free[offer.id] = assigned(job, offer, now=now)
                assignments.append(part)
                break
    return Plan(assignments=tuple(assignments))


Demand = tuple[Hashable, ...]
"""All of a job that decides whether an offer fits it."""


def _demand(job: PendingJob) -> Demand:
    spec = job.spec
    brings = frozenset(each.url.partition(":")[0] for each in spec.inputs), spec.image is not None
    placement = spec.regions, spec.min_grade, spec.isolation, bool(spec.secrets), bool(spec.network_allow)
    limits = spec.limits.max_price, spec.limits.max_carbon_grams, spec.limits.max_duration_seconds
    # How long it may wait still is its own affair, and what it may emit still.
    own = job.id if spec.start or spec.reserve or job.emitted_grams or job.brought_bytes else None
    return spec.resources, spec.python, brings, placement, limits, spec.preference, spec.work, job.past, own


class View:
    """How one job sees offers: which it may have, and which it likes better. Offers alike are judged once."""

    def __init__(self, job: PendingJob, *, now: datetime, grid: Grid = YEARLY_GRID) -> None:
        self._job, self._now, self._grid = job, now, grid
        spec = job.spec
        self._by_price = is_cheapest(spec.preference) and spec.work is None and not job.past
        self._bounded = (
            spec.limits.max_carbon_grams is not None
            or spec.preference.value is not None
            or spec.start is not None
        )
        self._known: dict[Hashable, tuple[float, bool]] = {}

    def admits(self, offer: Offer) -> bool:
        """Whether the offer fits and what is to be expected there breaks no limit."""
        if misfits(self._job.spec, offer, now=self._now):
            return False
        bounded = self._bounded or offer.ask.available_until_ms is not None
        return not bounded or self._judged(offer)[1]

    def burden(self, offer: Offer, price: int) -> float:
        """What the job costs its renter there, carbon and delay included; the least is best."""
        return price if self._by_price else self._judged(offer)[0]

    def verdict(self, offers: Sequence[Offer], *, prices: PriceProfile | None) -> Verdict:
        """Whether a deferrable job starts now at one of the offers that it may have."""
        options: dict[Hashable, Option] = {}
        for offer in offers:
            option = Option.at(
                self._job.spec,
                offer,
                price=ask_of(self._job.spec, offer),
                expected=self.expected(offer),
                brought_bytes=self._job.brought_bytes,
            )
            options.setdefault((option.model, option.region, option.price), option)
        since = self._job.submitted_at or self._now
        return decide(
            self._job.spec,
            list(options.values()),
            now=self._now,
            submitted_at=since,
            prices=prices,
            grid=self._grid,
        )

    def expected(self, offer: Offer) -> Expectation:
        """What is to be expected of a run from now on, at the offer's ask."""
        return expect(
            self._job.spec,
            offer,
            past=self._job.past,
            grid=self._grid,
            start=self._now.timestamp(),
            brought_bytes=self._job.brought_bytes,
        )

    def _judged(self, offer: Offer) -> tuple[float, bool]:
        spec = self._job.spec
        price = ask_of(self._job.spec, offer)
        devices = devices_for(spec, offer)
        place = place_of(spec, offer, devices or ())
        key = (
            place,
            offer.ask.region,
            offer.where,
            offer.ask.available_until_ms,
            price,
            devices is None or len(devices),
        )
        if key not in self._known:
            expected = self.expected(offer)
            burdened = burden(spec.preference, outlook(spec, expected, price=price))
            since = self._job.submitted_at or self._now
            waited = (self._now - since).total_seconds()
            wrong = unacceptable(
                spec,
                expected,
                waited_seconds=waited,
                emitted_grams=self._job.emitted_grams,
                seconds_left=offer.ask.seconds_left(now=self._now),
            )
            self._known[key] = burdened, not wrong
        return self._known[key]


def _ranked(job: PendingJob, offers: Iterable[Offer], view: View) -> list[Offer]:
    """The offers with a price for the job, the best first, whether they fit or not; none that is too full."""
    priced = [
        (offer.node in job.avoid, view.burden(offer, price), offer.free_cpu_milli, offer.id, offer)
        for offer in offers
        if _has_room(job, offer) and (price := price_for(job.spec, offer)) is not None
    ]
    return [offer for *_, offer in sorted(priced, key=itemgetter(0, 1, 2, 3))]


def _has_room(job: PendingJob, offer: Offer) -> bool:
    """At one look, as full offers are what a busy market mostly has; a window's room is not that of now."""
    wanted = job.spec.resources
    return job.spec.reserve is not None or (
        offer.free_cpu_milli >= wanted.cpu_milli and offer.free_memory_bytes >= wanted.memory_bytes
    )


def ask_of(spec: JobSpec, offer: Offer) -> int:
    """The ask of an offer that fits the job, in micro-units per device-hour."""
    price = price_for(spec, offer)
    assert price is not None, "only offers with a price fit"
    return price


def hold_of(job: PendingJob, *, price: int, left: int) -> Hold:
    """What is to be held for a run of the job at `price`, of which its wallet can add `left`, in micro-units.

    A max_cost was held in full at submission; what is left of it is all that later attempts may cost.
    """
    limits = job.spec.limits
    return hold_for(
        price=price,
        devices_milli=job.spec.resources.devices_milli,
        seconds=limits.duration_seconds,
        max_cost=None if limits.max_cost is None else job.held,
        available=job.held + left,
    )


def to_add(job: PendingJob, *, price: int, left: int) -> int:
    """What the wallet must hold beyond what is held already, in micro-units."""
    return max(0, hold_of(job, price=price, left=left).amount - job.held)


def assigned(job: PendingJob, offer: Offer, *, now: datetime) -> tuple[Assignment, Offer]:
    """The job's part of a fitting offer at its ask, and what is left of the offer."""
    part = part_of(job, offer, price=ask_of(job.spec, offer), devices=_devices(job, offer, now=now))
    return part, _taken(offer, part)


def _devices(job: PendingJob, offer: Offer, *, now: datetime) -> tuple[str, ...]:
    """Of devices alike those that no window claims while the run may last; for a window, those free in it."""
    wanted, reserve = job.spec.resources, job.spec.reserve
    if reserve is not None:
        view = in_window(offer, reserve, now=now)
    else:
        view = left_until(offer, now=now, until=run_until(job.spec, now=now))
    fitting = fitting_devices(job.spec, view.free_devices, offer.ask.torch_variants, offer.standings)
    return tuple(device.uuid for device in fitting[: wanted.gpu_count]) if wanted.gpu_count else ()


def part_of(job: PendingJob, offer: Offer, *, price: int, devices: tuple[str, ...]) -> Assignment:
    """What the job asks for of the offer, with those devices, at that price per device-hour."""
    wanted = job.spec.resources
    return Assignment(
        job=job.id,
        offer=offer.id,
        offer_version=offer.version,
        node=offer.node,
        provider=offer.provider,
        price=price,
        devices=devices,
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
