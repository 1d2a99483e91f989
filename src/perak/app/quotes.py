"""Hold a quote, and run a job at it: the part of the offer is taken, and its price firm, until it expires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from perak.app import market
from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged
from perak.app.ports import Ids, Transaction
from perak.app.records import Caller
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.errors import Conflict, NotFound, TooManyRequests
from perak.domain.job import JobSpec, Resources
from perak.domain.market.expect import Expectation, expect
from perak.domain.market.feasible import misfits
from perak.domain.market.history import Past, fingerprint
from perak.domain.market.match import PendingJob, instant_match, part_of
from perak.domain.offer import Offer
from perak.domain.units import format_money

HELD_SECONDS = 60
"""Long enough to read a table and answer, short enough that nobody's machine is kept idle by the asking."""
HELD_MAX = 3
"""Of one project at once: nobody can hold a market up for nothing."""
EXPIRED_PER_ROUND = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldQuote:
    """A part of an offer at a price in micro-units per device-hour, kept for a project until it expires."""

    id: str
    project: str
    offer: str
    node: str
    state: str
    price: int
    resources: Resources
    devices: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    created_at: datetime
    expires_at: datetime
    job: str | None = None


class QuoteStore(Protocol):
    async def hold(self, quote: HeldQuote, *, offer_version: int) -> bool: ...
    async def lock(self, id: str, *, project: str) -> HeldQuote | None: ...
    async def count_held(self, project: str) -> int: ...
    async def give_back(self, ids: list[str], *, state: str, job: str | None = None) -> None: ...
    async def expired(self, *, now: datetime, limit: int) -> list[str]: ...


async def hold(
    tx: Transaction,
    quotes: QuoteStore,
    *,
    caller: Caller,
    spec: JobSpec,
    offers: Sequence[Offer],
    new_id: Ids,
    now: datetime,
    past: Sequence[Past] = (),
    grid: Grid = YEARLY_GRID,
) -> HeldQuote:
    """Hold the offer of `offers` that the job's preference likes best. No money moves.

    `past`: what its workload did before; `grid`: what is known of the hours ahead. A job that may wait is
    held a part for now all the same. Raises TooManyRequests where the project holds HELD_MAX already, and
    Conflict where no offer fits now.
    """
    await expire(quotes, now=now)
    if await quotes.count_held(caller.project) >= HELD_MAX:
        raise TooManyRequests(
            f"this project holds {HELD_MAX} quotes already; use one with `perak run --quote`, or wait until "
            f"one expires, {HELD_SECONDS} s after it was made"
        )
    at_once = replace(spec, start=replace(spec.start, within_seconds=0)) if spec.start else spec
    asked = PendingJob(
        id="asked", project=caller.project, spec=at_once, epoch=0, available=2**62, past=tuple(past)
    )
    plan = instant_match([asked], [each for each in offers if each.accepting], now=now, grid=grid)
    if not plan.assignments:
        raise Conflict(
            "no offer fits this job now, so there is nothing to hold; `perak quote` says what stands in the "
            "way",
            code="nothing_to_hold",
        )
    part = plan.assignments[0]
    quote = HeldQuote(
        id=new_id("quote"),
        project=caller.project,
        offer=part.offer,
        node=part.node,
        state="held",
        price=part.price,
        resources=spec.resources,
        devices=part.devices,
        cpu_milli=part.cpu_milli,
        memory_bytes=part.memory_bytes,
        disk_bytes=part.disk_bytes,
        created_at=now,
        expires_at=now + timedelta(seconds=HELD_SECONDS),
    )
    if not await quotes.hold(quote, offer_version=part.offer_version):
        raise Conflict("the offer was taken or changed just now; ask again", code="nothing_to_hold")
    return quote


def expected(
    quote: HeldQuote, spec: JobSpec, offers: Sequence[Offer], *, past: Sequence[Past], grid: Grid
) -> Expectation:
    """What to expect of the job at a quote that was just held on one of `offers`, at its price."""
    offer = next(each for each in offers if each.id == quote.offer)
    return expect(spec, offer, past=past, grid=grid, start=quote.created_at.timestamp(), price=quote.price)


async def honour(
    tx: Transaction,
    quotes: QuoteStore,
    id: str,
    *,
    caller: Caller,
    job: str,
    spec: JobSpec,
    held: int,
    new_id: Ids,
    now: datetime,
    workloads: market.WorkloadStore | None = None,
) -> list[Effect]:
    """Give the job, which was queued in this transaction, the part that the quote holds, at its price.

    `held`: micro-units that its submission holds. `workloads`: where what is expected of the run is kept, as
    for any other; None: nothing is foretold. Raises NotFound, Conflict where the quote has expired, was
    used, or is for other resources, and InsufficientFunds.
    """
    quote = await quotes.lock(id, project=caller.project)
    if quote is None:
        raise NotFound(f"this project has no quote {id}; `perak quote --hold` makes one")
    if quote.state != "held" or quote.expires_at <= now:
        word = f"was used by {quote.job}" if quote.state == "used" else "has expired"
        raise Conflict(
            f"the quote {id} {word}; ask for another with `perak quote --hold`", code="quote_expired"
        )
    if spec.resources != quote.resources:
        raise Conflict(
            f"the quote {id} was made for other resources than this job asks for; quote this job file",
            code="quote_of_another_job",
        )
    await quotes.give_back([quote.id], state="used", job=job)
    offer = await tx.offers.of_node(quote.node)
    if offer is None or offer.id != quote.offer:
        raise Conflict(f"the offer of the quote {id} is gone; ask for another", code="quote_lost")
    _check_fits(spec, offer, quote, now=now)
    print_of = fingerprint(spec)
    known = {} if workloads is None else await workloads.past([print_of], project=caller.project)
    pending = PendingJob(
        id=job,
        project=caller.project,
        spec=spec,
        epoch=0,
        held=held,
        available=await tx.ledger.wallet_available(caller.project),
        past=known.get(print_of, ()),
    )
    part = part_of(pending, offer, price=quote.price, devices=quote.devices)
    if not await market.grant_part(
        tx, pending, part, offer=offer, new_id=new_id, now=now, workloads=workloads
    ):
        raise Conflict(
            f"the node of the quote {id} takes no work any more: it went away or its owner paused it",
            code="quote_lost",
        )
    return [NodeChanged(quote.node), JobChanged(job)]


def _check_fits(spec: JobSpec, offer: Offer, quote: HeldQuote, *, now: datetime) -> None:
    """The job must fit apart from its price, which is the quote's, and from what the clock changed since."""
    asked = replace(spec, limits=replace(spec.limits, max_price=None))
    found = misfits(asked, offer, now=now)
    wrong = [each for each in found if not each.now_only or each.dimension == "reserved"]
    if wrong:
        raise Conflict(
            f"the job does not fit the offer of the quote {quote.id}: {wrong[0]}", code="quote_of_another_job"
        )


async def expire(quotes: QuoteStore, *, now: datetime) -> list[Effect]:
    """Give back what quotes held that nobody used."""
    ids = await quotes.expired(now=now, limit=EXPIRED_PER_ROUND)
    if not ids:
        return []
    await quotes.give_back(ids, state="expired")
    return [MarketChanged()]


def describe(quote: HeldQuote, currency: str) -> str:
    return f"{format_money(quote.price, currency)} per device-hour until {quote.expires_at:%H:%M:%S} UTC"
