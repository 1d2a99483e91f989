"""What a job would cost, take, draw and emit on each offer, and for those that don't fit, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from perak.domain.carbon.breakeven import advice
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.hardware.prices import Beside, Comparison, compare, compare_cores
from perak.domain.hardware.specs import find_gpu
from perak.domain.job import JobSpec
from perak.domain.market.defer import OPTIONS_MAX, Option, PriceProfile, Verdict, decide
from perak.domain.market.expect import (
    Expectation,
    devices_for,
    expect,
    outlook,
    unacceptable,
    worth,
)
from perak.domain.market.feasible import (
    Misfit,
    fitting_devices,
    large_enough_devices,
    misfits,
    price_for,
    window_cost,
)
from perak.domain.market.history import Past
from perak.domain.market.pareto import front
from perak.domain.market.relax import Relaxation, relaxations
from perak.domain.market.utility import burden
from perak.domain.offer import Device, Offer, SandboxTier
from perak.domain.outcome import hold_for
from perak.domain.units import SECONDS_PER_HOUR, charge


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferQuote:
    """The job on one offer. Money in micro-units; `cost_max` is for the job's whole max_duration.

    `price` is per device-hour, `per_hour` price x devices; None where the offer has no price for the job.
    Watts are expected at full use; None where the device is not in the tables. `burden`: cost, carbon and
    delay at the renter's prices, by which offers are ranked. `pareto`: no other fitting offer is better in
    cost, time and carbon at once.
    """

    offer: Offer
    sandbox: SandboxTier
    """The one that the job would get, the offer's default one where none suffices."""
    device: str
    market_class: str
    misfits: tuple[Misfit, ...]
    price: int | None
    per_hour: int | None
    cost_max: int | None
    watts: float | None
    carbon_grams_per_hour: float | None
    carbon_source: str | None
    expected: Expectation
    utility: float | None
    burden: float | None
    comparison: Comparison | None
    old_or_new: str | None = None
    """Below which grid intensity these GPUs are greener than a new one; None: nothing to compare with."""
    pareto: bool = False

    @property
    def fits(self) -> bool:
        return not self.misfits


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Fitting offers, the best for the renter first, then the others; and what would be held at submit."""

    hold: int
    affordable: bool
    offers: tuple[OfferQuote, ...]
    relaxations: tuple[Relaxation, ...] = ()
    waiting: Verdict | None = None
    """Of a job that may wait: when it would start, and what that saves against starting now; None: it may
    not, or nothing fits now."""


def quote(
    spec: JobSpec,
    offers: Sequence[Offer],
    *,
    available: int,
    currency: str,
    now: datetime,
    past: Sequence[Past] = (),
    outputs_bytes: int | None = None,
    grid: Grid = YEARLY_GRID,
    prices: PriceProfile | None = None,
    submitted_at: datetime | None = None,
) -> Quote:
    """The job on every offer; `available` is what the wallet could hold, in micro-units of `currency`.

    `past`: what its workload did before; `outputs_bytes`: how much it left then, None: that is not known.
    A job that reserves a window is quoted as of the window's start. `prices`: what is usual by the hour of
    the day; `submitted_at`: since when the job waits already, None: it is not submitted.
    """
    if spec.reserve is not None:
        now = max(now, spec.reserve.start_at)
    beside = Beside(
        disk=spec.resources.disk_bytes,
        outputs=outputs_bytes if spec.outputs else 0,
    )
    found = [
        _on_offer(
            spec,
            offer,
            currency=currency,
            now=now,
            past=past,
            beside=beside,
            grid=grid,
        )
        for offer in offers
    ]
    hold = _hold(spec, _price_to_hold(spec, found), available=available)
    ranked = tuple(sorted(_with_front(found), key=_order))
    options = [] if spec.start is None else _options(spec, ranked)
    return Quote(
        hold=hold,
        affordable=hold <= available,
        offers=ranked,
        waiting=decide(spec, options, now=now, submitted_at=submitted_at or now, prices=prices, grid=grid)
        if options
        else None,
        relaxations=relaxations(
            spec,
            offers,
            now=now,
            expecting=lambda job, offer: expect(job, offer, past=past, grid=grid, start=now.timestamp()),
        ),
    )


def _options(spec: JobSpec, ranked: Sequence[OfferQuote]) -> list[Option]:
    """Where the job could start now, the best first."""
    return [
        Option.at(spec, each.offer, price=each.price, expected=each.expected)
        for each in ranked
        if each.fits and each.price is not None
    ][:OPTIONS_MAX]


def _hold(spec: JobSpec, price: int, *, available: int) -> int:
    """What is held at submission: of a window all, as it is agreed for all of it."""
    if spec.reserve is not None:
        return window_cost(spec, price)
    return hold_for(
        price=price,
        devices_milli=spec.resources.devices_milli,
        seconds=spec.limits.duration_seconds,
        max_cost=spec.limits.max_cost,
        available=available,
    ).amount


def _order(item: OfferQuote) -> tuple[bool, int, float, str]:
    ranked = item.burden if item.burden is not None else float(2**63)
    return (not item.fits, len(item.misfits), ranked, item.offer.id)


def _with_front(found: Sequence[OfferQuote]) -> list[OfferQuote]:
    """Those that fit and are on the front of cost, time and carbon marked so."""
    fitting = [index for index, each in enumerate(found) if each.fits]
    points = [_point(found[index]) for index in fitting]
    best = {fitting[index] for index in front(points)}
    return [replace(each, pareto=index in best) for index, each in enumerate(found)]


def _point(item: OfferQuote) -> tuple[float | None, float | None, float | None]:
    """(cost, time, carbon); of an hour of a reference device where nothing is known of the work."""
    expected = item.expected
    if expected.seconds is not None:
        return expected.cost, expected.seconds, expected.carbon_grams
    time, grams = expected.relative_time, item.carbon_grams_per_hour
    return (
        None if item.per_hour is None else item.per_hour * time,
        time,
        None if grams is None else grams * time,
    )


def _price_to_hold(spec: JobSpec, quotes: Sequence[OfferQuote]) -> int:
    """The cheapest price of an offer that fits, now or when it is idle; else the renter's own limit."""
    prices = [q.price for q in quotes if q.price is not None and all(m.now_only for m in q.misfits)]
    return min(prices, default=spec.limits.max_price or 0)


def _on_offer(
    spec: JobSpec,
    offer: Offer,
    *,
    currency: str,
    now: datetime,
    past: Sequence[Past],
    beside: Beside,
    grid: Grid,
) -> OfferQuote:
    price, milli = price_for(spec, offer), spec.resources.devices_milli
    devices = _devices(spec, offer)
    expected = expect(spec, offer, past=past, grid=grid, start=now.timestamp())
    per_hour = None if price is None else _cost(price, milli, SECONDS_PER_HOUR)
    return OfferQuote(
        offer=offer,
        sandbox=offer.ask.sandbox(
            offer.ask.tier_for(spec.isolation, with_devices=spec.resources.gpu_count > 0)
        ),
        device=_device_text(offer, devices),
        market_class=class_of(offer, devices),
        misfits=misfits(spec, offer, now=now)
        + unacceptable(spec, expected, seconds_left=offer.ask.seconds_left(now=now)),
        price=price,
        per_hour=per_hour,
        cost_max=None if price is None else _cost(price, milli, spec.limits.duration_seconds),
        watts=expected.watts,
        carbon_grams_per_hour=hourly_grams(expected),
        carbon_source=carbon_source(expected),
        expected=expected,
        utility=worth(spec, expected),
        burden=None if price is None else burden(spec.preference, outlook(spec, expected, price=price)),
        comparison=_comparison(spec, devices, expected, per_hour, currency, beside),
        old_or_new=_old_or_new(devices, expected),
    )


def hourly_grams(expected: Expectation) -> float | None:
    """Operational CO2e of an hour there; None: the power is not known."""
    if expected.carbon is None:
        return None
    return expected.carbon.grams * SECONDS_PER_HOUR / (expected.seconds or SECONDS_PER_HOUR)


def carbon_source(expected: Expectation) -> str | None:
    """What the intensity rests on, in words."""
    return None if expected.carbon is None else f"{expected.carbon.mean.label}: {expected.carbon.mean.source}"


def _old_or_new(devices: Sequence[Device], expected: Expectation) -> str | None:
    if not devices or expected.carbon is None:
        return None
    here, first = expected.carbon.mean.grams_per_kwh, devices[0]
    found = advice(first.model, here=here, memory_bytes=first.memory_bytes)
    return None if found is None else found.line


def class_of(offer: Offer, devices: Sequence[Device]) -> str:
    """What is alike to the market: model, region and grade, as people read it."""
    if not devices:
        return f"{offer.ask.cpu_model}, {offer.ask.region}"
    first = devices[0]
    known = find_gpu(first.model, memory_bytes=first.memory_bytes)
    model = known.variant if known else first.model
    return f"{model}, {offer.ask.region}, {offer.standing_of(first).label}"


def _cost(price: int, milli: int, seconds: int) -> int:
    return charge(price_per_device_hour=price, devices_milli=milli, seconds=seconds)


def _devices(spec: JobSpec, offer: Offer) -> tuple[Device, ...]:
    """The GPUs that the job would get on the idle offer; fewer than it wants where there are no more."""
    found = devices_for(spec, offer)
    if found is not None:
        return found
    devices = offer.ask.devices
    fitting = fitting_devices(
        spec, devices, offer.ask.torch_variants, offer.standings
    ) or large_enough_devices(spec, devices)
    return fitting[: spec.resources.gpu_count]


def _device_text(offer: Offer, devices: tuple[Device, ...]) -> str:
    if devices:
        return f"{len(devices)} x {devices[0].model}"
    return offer.ask.cpu_model


def _comparison(
    spec: JobSpec,
    devices: tuple[Device, ...],
    expected: Expectation,
    per_hour: int | None,
    currency: str,
    beside: Beside,
) -> Comparison | None:
    """The whole bill where the time is known, else an hour's."""
    wanted, known = spec.resources, expected.undisturbed
    if per_hour is None or (wanted.gpu_count and not devices):
        return None
    bill = per_hour if known is None or expected.cost is None else expected.cost
    hours = None if known is None else known.hours
    if not devices:
        return compare_cores(
            wanted.cpu_milli,
            memory_bytes=wanted.memory_bytes,
            bill=bill,
            currency=currency,
            hours=hours,
            beside=beside,
        )
    return compare(
        devices[0].model,
        count=len(devices),
        bill=bill,
        currency=currency,
        hours=hours,
        memory_bytes=devices[0].memory_bytes,
        memory_needed=wanted.gpu_memory_bytes,
        beside=beside,
    )
