"""Reserve windows: booked at submission, begun at their start, moved or refunded where a node is gone.

All of it happens under the market's lock, so that no match, quote or window takes what another just took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from perak.app import market
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import Caller
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.errors import Conflict, InsufficientFunds, InvalidInput, TooManyRequests
from perak.domain.job import JobSpec, Reserve
from perak.domain.lifecycle import JOB, RESERVATION
from perak.domain.market.feasible import misfits, window_cost
from perak.domain.market.match import Assignment, PendingJob, View, ask_of, assigned
from perak.domain.market.windows import AHEAD_SECONDS_MAX, in_window
from perak.domain.offer import Claim, Offer
from perak.domain.units import format_duration, format_money

RESERVATIONS_MAX = 16
"""Of one project at once: each keeps capacity from others, and until it begins it costs held money alone."""
END_BEFORE_SECONDS = 12
"""A run is asked to end so long before its window does: ten seconds of grace, and two to look and to tell."""
STOP_BEFORE_SECONDS = 30
"""Who overstays is stopped so long before another's window begins: the grace, and the wipe of the devices."""
MOVE_AFTER_SECONDS = 30
"""Devices that are still in use at the start, on a node that is there, are waited for so long."""
RETRY_SECONDS = 5
"""A window that could not be begun is tried again after this time: each try looks at every offer."""
PER_ROUND_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A part of an offer that is kept for a job in a window, at a price in micro-units per device-hour."""

    job: str
    project: str
    offer: str
    node: str
    provider: str
    state: str
    price: int
    devices_milli: int
    devices: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    start_at: datetime
    end_at: datetime
    created_at: datetime
    missed_since: datetime | None = None
    """When its start was first tried in vain; the exchange's own absence counts against nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A live lease that has to go: its own window ends, or it is still there when another's begins."""

    lease: str
    job: str
    cause: str
    detail: str


class ReservationStore(Protocol):
    async def insert(self, reservation: Reservation) -> None:
        """Raises Conflict where a device is in another window then."""

    async def get(self, job: str) -> Reservation | None:
        """The job's live one, locked; its job is locked before."""
        ...

    async def pending(self, job: str) -> PendingJob | None:
        """The job, locked, where it is queued and nobody else works on it."""
        ...

    async def count_live(self, project: str) -> int: ...
    async def taken(self, *, now: datetime, except_job: str | None = None) -> Mapping[str, tuple[Claim, ...]]:
        """By offer: windows, live leases and held quotes, by when each ends at the latest."""
        ...

    async def put(self, reservation: Reservation, *, note: str | None) -> None:
        """Keep its new state and place; a note of None leaves the last."""

    async def missed(self, job: str, *, now: datetime) -> None: ...
    async def due(self, *, now: datetime, tried_before: datetime, limit: int) -> list[str]:
        """Jobs whose window has begun and that have no run."""
        ...

    async def ending(self, *, end_before: datetime, limit: int) -> list[Stop]: ...
    async def overstaying(self, *, now: datetime, start_before: datetime, limit: int) -> list[Stop]: ...


def check_window(reserve: Reserve, *, now: datetime) -> None:
    """Raises InvalidInput where it has begun already, or is too far ahead."""
    if reserve.start_at < now:
        raise InvalidInput(
            f"reserve.start {_at(reserve.start_at)} is past; name a time to come, in UTC, or leave `reserve` "
            "out and the job starts at once",
            code="window_past",
        )
    if reserve.start_at > now + timedelta(seconds=AHEAD_SECONDS_MAX):
        raise InvalidInput(
            f"reserve.start {_at(reserve.start_at)} is more than {format_duration(AHEAD_SECONDS_MAX)} ahead; "
            "reserve it later",
            code="window_too_far",
        )


async def book(
    tx: Transaction,
    store: ReservationStore,
    *,
    caller: Caller,
    job: str,
    spec: JobSpec,
    now: datetime,
    grid: Grid = YEARLY_GRID,
) -> list[Effect]:
    """Reserve the window of a job that was queued in this transaction: the best offer for it, at its ask.

    The whole window is held. Raises InvalidInput for a window that is past or too far, TooManyRequests above
    RESERVATIONS_MAX, Conflict where no offer has the part free then, and InsufficientFunds.
    """
    reserve = spec.reserve
    assert reserve is not None, "the caller looked"
    check_window(reserve, now=now)
    if await store.count_live(caller.project) >= RESERVATIONS_MAX:
        raise TooManyRequests(
            f"this project has {RESERVATIONS_MAX} windows reserved already; cancel one with `perak cancel`, "
            "or wait until one is over"
        )
    offers = await _offers(tx, store, now=now)
    available = await tx.ledger.wallet_available(caller.project)
    pending = PendingJob(id=job, project=caller.project, spec=spec, epoch=0, available=available)
    fitting = _ranked(pending, offers, now=now, grid=grid)
    if not fitting:
        raise Conflict(
            f"no offer has room for this job from {_span(reserve)}; `perak quote` says what stands in "
            "the way",
            code="no_window",
        )
    offer = next((each for each in fitting if window_cost(spec, ask_of(spec, each)) <= available), fitting[0])
    part, _ = assigned(pending, offer, now=now)
    cost = window_cost(spec, part.price)
    if cost > available:
        raise InsufficientFunds(
            f"the window costs {format_money(cost)}, which is held in full, and the wallet has "
            f"{format_money(available)}; fund it with `perak wallet fund`, or reserve less"
        )
    if cost:
        await tx.ledger.hold(project=caller.project, job=job, amount=cost, now=now)
    await store.insert(_reservation(pending, part, reserve, now=now))
    detail = (
        f"{offer.node_name} is reserved from {_span(reserve)} at {format_money(part.price)} per device-hour; "
        f"{format_money(cost)} is held"
    )
    await tx.jobs.event(job, kind="reserved", detail=detail, now=now)
    return [JobChanged(job)]


async def due(store: ReservationStore, *, now: datetime) -> list[str]:
    """Jobs whose window has begun, and that have no run; each is begun in a transaction of its own."""
    before = now - timedelta(seconds=RETRY_SECONDS)
    return await store.due(now=now, tried_before=before, limit=PER_ROUND_MAX)


async def begin(
    tx: Transaction,
    store: ReservationStore,
    job: str,
    *,
    new_id: Ids,
    now: datetime,
    grid: Grid = YEARLY_GRID,
) -> list[Effect]:
    """Lease the job what was reserved for it; where that is gone, another part at no higher price.

    Where there is neither for longer than the job's disconnect_grace, the job fails and all is refunded. A
    job whose run was lost within its window is begun again in what is left of it.
    """
    await tx.single("market")
    pending = await store.pending(job)
    kept = await store.get(job) if pending is not None else None
    if pending is None or kept is None or kept.start_at > now:
        return []
    left = int((kept.end_at - now).total_seconds())
    if left <= END_BEFORE_SECONDS:
        over = "its reserved window ended before a run of it could"
        return await _give_up(tx, store, kept, over, now=now)
    offers = await _offers(tx, store, now=now, except_job=job)
    own = next((each for each in offers if each.id == kept.offer), None)
    here = None if own is None else _own_part(pending, kept, own, now=now)
    soon = kept.start_at + timedelta(seconds=MOVE_AFTER_SECONDS)
    if here is None and own is not None and own.accepting and kept.state == "booked" and now < soon:
        await store.missed(job, now=now)
        return []
    for offer, part in _places(pending, kept, offers, own, here, now=now, grid=grid):
        if await market.grant_window(tx, pending, part, seconds=left, ask=offer.ask, new_id=new_id, now=now):
            return await _begun(tx, store, kept, own, offer, part, now=now)
    return await _missed(tx, store, pending, kept, own, now=now)


def _places(
    job: PendingJob,
    kept: Reservation,
    offers: Sequence[Offer],
    own: Offer | None,
    here: Assignment | None,
    *,
    now: datetime,
    grid: Grid,
) -> list[tuple[Offer, Assignment]]:
    """Where it may begin, the reserved part first, unless its node has just failed the job."""
    at_home = [] if own is None or here is None else [(own, here)]
    if at_home and kept.node not in job.avoid:
        return at_home
    limits = replace(job.spec.limits, max_price=kept.price)
    moving = replace(job, spec=replace(job.spec, limits=limits))
    others = [each for each in offers if each.id != kept.offer]
    ranked = _ranked(moving, others, now=now, grid=grid)
    away = [(each, assigned(moving, each, now=now)[0]) for each in ranked if each.node not in job.avoid]
    return [*away, *at_home]


async def _begun(
    tx: Transaction,
    store: ReservationStore,
    kept: Reservation,
    own: Offer | None,
    offer: Offer,
    part: Assignment,
    *,
    now: datetime,
) -> list[Effect]:
    note = None
    if offer.id != kept.offer:
        RESERVATION.step(kept.state, "moved")
        note = (
            f"it was moved to {offer.node_name} at {format_money(part.price)} per device-hour, "
            f"no more than the {format_money(kept.price)} agreed: {_gone(own)}"
        )
        await tx.jobs.event(kept.job, kind="reserved", detail=note, now=now)
    placed = replace(
        kept,
        state=RESERVATION.step(kept.state, "begun"),
        offer=part.offer,
        node=part.node,
        provider=part.provider,
        price=part.price,
        devices=part.devices,
    )
    await store.put(placed, note=note)
    return [NodeChanged(part.node), JobChanged(kept.job), MarketChanged()]


async def _missed(
    tx: Transaction,
    store: ReservationStore,
    pending: PendingJob,
    kept: Reservation,
    own: Offer | None,
    *,
    now: datetime,
) -> list[Effect]:
    """Try again, or give up: a node may return within the grace that its renter gives any node."""
    since = kept.missed_since or now
    until = since + timedelta(seconds=pending.spec.disconnect_grace_seconds)
    nowhere = f"{_gone(own)}, and no other offer fits at {format_money(kept.price)} per device-hour or less"
    if kept.state == "booked" and now >= until:
        reason = f"its reserved window could not be kept: {nowhere}; all that was held is refunded"
        return await _give_up(tx, store, kept, reason, now=now)
    if kept.missed_since is None:
        wait = until if kept.state == "booked" else kept.end_at
        detail = f"its window could not be begun: {nowhere}; this is tried until {_at(wait)}"
        await tx.jobs.event(kept.job, kind="warning", detail=detail, now=now)
    await store.missed(kept.job, now=now)
    return [JobChanged(kept.job)] if kept.missed_since is None else []


async def _give_up(
    tx: Transaction, store: ReservationStore, kept: Reservation, reason: str, *, now: datetime
) -> list[Effect]:
    """The job fails; the database ends its reservation with it."""
    await store.put(kept, note=reason)
    held = await tx.ledger.held(kept.job)
    await tx.ledger.release(job=kept.job, held=held, now=now)
    await tx.jobs.step(kept.job, state=JOB.step("queued", "failed"), now=now, reason=reason, ended=True)
    return [JobChanged(kept.job), MarketChanged()]


async def to_stop(store: ReservationStore, *, now: datetime) -> list[Stop]:
    """Leases whose window is about to end, and those that overstay where another's is about to begin."""
    ending = await store.ending(end_before=now + timedelta(seconds=END_BEFORE_SECONDS), limit=PER_ROUND_MAX)
    start_before = now + timedelta(seconds=STOP_BEFORE_SECONDS)
    return [*ending, *await store.overstaying(now=now, start_before=start_before, limit=PER_ROUND_MAX)]


async def stop(tx: Transaction, wanted: Stop, *, now: datetime) -> list[Effect]:
    """Ask a run to end, unless it did or was asked to."""
    at = await tx.leases.live_of_job(wanted.job)
    if at is None or at.lease.id != wanted.lease or at.lease.stop_cause is not None:
        return []
    await tx.leases.ask_stop(wanted.lease, cause=wanted.cause, now=now)
    await tx.jobs.event(wanted.job, kind="warning", detail=wanted.detail, now=now)
    return [NodeChanged(at.lease.node), JobChanged(wanted.job)]


async def _offers(
    tx: Transaction, store: ReservationStore, *, now: datetime, except_job: str | None = None
) -> list[Offer]:
    taken = await store.taken(now=now, except_job=except_job)
    return [replace(each, taken=taken.get(each.id, ())) for each in await tx.offers.all_open()]


def _ranked(job: PendingJob, offers: Sequence[Offer], *, now: datetime, grid: Grid) -> list[Offer]:
    """The offers that fit in the window, as its renter likes them; of equal ones the first by id."""
    assert job.spec.reserve is not None
    view = View(job, now=max(now, job.spec.reserve.start_at), grid=grid)
    fitting = [each for each in offers if each.accepting and view.admits(each)]
    return sorted(fitting, key=lambda each: (view.burden(each, ask_of(job.spec, each)), each.id))


def _own_part(job: PendingJob, kept: Reservation, own: Offer, *, now: datetime) -> Assignment | None:
    """What was reserved, at the price agreed, whatever the ask is now; None: it isn't there, or not free."""
    reserve = job.spec.reserve
    assert reserve is not None
    wrong = [each for each in misfits(job.spec, own, now=now) if each.dimension not in ("price", "max_cost")]
    free = {each.uuid for each in in_window(own, reserve, now=now).free_devices}
    if wrong or not free.issuperset(kept.devices):
        return None
    return Assignment(
        job=kept.job,
        offer=own.id,
        offer_version=own.version,
        node=own.node,
        provider=own.provider,
        price=kept.price,
        devices=kept.devices,
        devices_milli=kept.devices_milli,
        cpu_milli=kept.cpu_milli,
        memory_bytes=kept.memory_bytes,
        disk_bytes=kept.disk_bytes,
    )


def _reservation(job: PendingJob, part: Assignment, reserve: Reserve, *, now: datetime) -> Reservation:
    return Reservation(
        job=job.id,
        project=job.project,
        offer=part.offer,
        node=part.node,
        provider=part.provider,
        state=RESERVATION.initial,
        price=part.price,
        devices_milli=part.devices_milli,
        devices=part.devices,
        cpu_milli=part.cpu_milli,
        memory_bytes=part.memory_bytes,
        disk_bytes=part.disk_bytes,
        start_at=reserve.start_at,
        end_at=reserve.end_at,
        created_at=now,
    )


def _gone(own: Offer | None) -> str:
    """Why the reserved part can't be had."""
    if own is None:
        return "the offer that was reserved is closed"
    if not own.accepting:
        return f"{own.node_name} takes no work now: it is away, or its owner paused it"
    return f"{own.node_name} no longer has what was reserved, or failed the job"


def _span(reserve: Reserve) -> str:
    return f"{_at(reserve.start_at)} for {format_duration(reserve.seconds)}"


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
