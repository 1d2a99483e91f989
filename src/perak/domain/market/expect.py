"""What to expect of a job on an offer: time, cost with lost work, energy, carbon and risk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perak.domain.carbon.budget import least_keepable_grams
from perak.domain.carbon.energy import cpu_watts, gpu_watts
from perak.domain.carbon.placement import YEARLY_GRID, Grid, PlacementCarbon
from perak.domain.hardware.specs import find_gpu
from perak.domain.job import JobSpec
from perak.domain.market.feasible import Misfit, fitting_devices, large_enough_devices, price_for
from perak.domain.market.history import Past
from perak.domain.market.predict import Place, Prediction, predict, relative_time
from perak.domain.market.utility import Outlook, burden, is_cheapest, utility
from perak.domain.offer import Device, Offer
from perak.domain.units import SECONDS_PER_HOUR, charge, format_duration, format_money

HAZARD_MAX = 10.0
"""Failures expected in one undisturbed run, at most: such a job takes two thousand times as long already, and
beyond it the figures say no more."""
CARBON_HORIZON_SECONDS = 72 * 3600
"""Carbon is read hour by hour so far ahead, further than forecasts reach; the rest counts as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A job at a place, from a moment on. Money in micro-units; None: not known, never zero.

    `seconds` is the time until it has ended well, runs that a fault cuts short included: without checkpoints
    each begins anew, and is paid for, as what signed evidence proves is billed. `undisturbed` is one run.
    Where nothing is known of the work, time, cost and what follows from them are None.
    """

    undisturbed: Prediction | None = None
    relative_time: float = 1.0
    """How much longer than on a reference GPU, by their rates: for ranking where nothing else is known."""
    seconds: float | None = None
    low_seconds: float | None = None
    high_seconds: float | None = None
    cost: int | None = None
    """Expected, lost work included."""
    lost_cost: int | None = None
    """The part of it that is lost work."""
    watts: float | None = None
    joules: float | None = None
    carbon: PlacementCarbon | None = None
    """Of the expected time; where that is not known, of an hour."""
    failures_per_hour: float | None = None
    failure_risk: float | None = None
    """The probability that a fault cuts the run short."""

    @property
    def carbon_grams(self) -> float | None:
        """Of the whole job; None: time or power are not known."""
        return None if self.seconds is None or self.carbon is None else self.carbon.grams

    @property
    def counted_grams(self) -> float | None:
        """As a preference for clean power counts it; where the time is not known, of an hour."""
        return None if self.carbon is None else self.carbon.counted_grams


def expect(
    spec: JobSpec,
    offer: Offer,
    *,
    past: Sequence[Past] = (),
    grid: Grid = YEARLY_GRID,
    start: float,
    price: int | None = None,
    brought_bytes: int = 0,
) -> Expectation:
    """The job on `offer` from Unix time `start` on, at its ask or at `price` per device-hour.

    `brought_bytes`: what the exchange has to bring there.
    """
    price = price_for(spec, offer) if price is None else price
    devices = devices_for(spec, offer)
    hazard = _hazard(offer, devices or ())
    place = place_of(spec, offer, devices or ())
    prediction = predict(spec, place, past=past) if devices is not None else None
    watts = _watts(spec, devices, prediction)
    if prediction is None:
        return Expectation(
            relative_time=relative_time(place),
            watts=watts,
            carbon=_carbon(offer, grid, watts, SECONDS_PER_HOUR, start, brought_bytes),
            failures_per_hour=hazard,
        )
    longer = _longer(hazard, prediction.hours)
    seconds = prediction.seconds * longer
    cost = None if price is None else _cost(spec, price, seconds)
    undisturbed = None if price is None else _cost(spec, price, prediction.seconds)
    return Expectation(
        undisturbed=prediction,
        seconds=seconds,
        low_seconds=prediction.low_seconds,
        high_seconds=prediction.high_seconds * longer,
        cost=cost,
        lost_cost=None if cost is None or undisturbed is None else cost - undisturbed,
        watts=watts,
        joules=None if watts is None else watts * seconds,
        carbon=_carbon(offer, grid, watts, seconds, start, brought_bytes),
        failures_per_hour=hazard,
        failure_risk=None if hazard is None else -math.expm1(-min(HAZARD_MAX, hazard * prediction.hours)),
    )


def _carbon(
    offer: Offer, grid: Grid, watts: float | None, seconds: float, start: float, brought_bytes: int
) -> PlacementCarbon | None:
    """Of `watts` for so long; beyond CARBON_HORIZON_SECONDS what comes is taken to be as what came."""
    if watts is None:
        return None
    ahead = min(seconds, CARBON_HORIZON_SECONDS)
    found = grid.carbon(
        region=offer.ask.region,
        watts=watts,
        seconds=ahead,
        start=start,
        where=offer.where,
        transfer_bytes=brought_bytes,
    )
    if ahead == seconds:
        return found
    longer, moved = seconds / ahead, found.counted_moved_grams
    counted = (found.counted_grams - moved) * longer + moved
    return replace(found, grams=found.grams * longer, counted_grams=counted)


def outlook(spec: JobSpec, expected: Expectation, *, price: int) -> Outlook:
    """What the market ranks by. Where nothing is known of the work, an hour on the reference GPU is assumed;
    who wants the cheapest then gets the least price per hour, whatever the device."""
    hours = expected.seconds / SECONDS_PER_HOUR if expected.seconds is not None else 1.0
    if expected.seconds is None and not is_cheapest(spec.preference):
        hours = expected.relative_time
    grams = expected.counted_grams
    if grams is not None and expected.seconds is None:
        grams *= hours
    return Outlook(hours=hours, cost=price * spec.resources.devices_milli / 1000 * hours, carbon_grams=grams)


def rank(
    spec: JobSpec,
    offer: Offer,
    *,
    past: Sequence[Past] = (),
    grid: Grid = YEARLY_GRID,
    start: float,
    price: int,
) -> float:
    """Cost, carbon and delay of the job there in micro-units, to compare offers by; the least is best."""
    expected = expect(spec, offer, past=past, grid=grid, start=start, price=price)
    return burden(spec.preference, outlook(spec, expected, price=price))


def _grams(grams: float) -> str:
    return f"{grams:.0f} g" if grams >= 10 else f"{grams:.3g} g"


def unacceptable(
    spec: JobSpec,
    expected: Expectation,
    *,
    waited_seconds: float = 0.0,
    seconds_left: int | None = None,
    emitted_grams: float = 0.0,
) -> tuple[Misfit, ...]:
    """Where what is expected breaks a limit of the renter's: carbon, deadline, or the job's own value.

    Only what is known is held against an offer. `waited_seconds`: since the job was submitted;
    `seconds_left`: until the offer ends; `emitted_grams`: by the job's earlier runs.
    """
    found: list[Misfit] = []
    most = spec.limits.max_carbon_grams
    if most is not None and (grams := _emitted_at_least(expected)) is not None:
        left = max(0.0, most - emitted_grams)
        if grams > left:
            found.append(
                Misfit(dimension="carbon", needed=f"{_grams(left)} CO2e or less", available=_grams(grams))
            )
    if spec.start is not None and spec.start.deadline_seconds is not None and expected.seconds is not None:
        left = spec.start.deadline_seconds - waited_seconds
        if expected.seconds > left:
            found.append(
                Misfit(
                    dimension="deadline",
                    needed=f"an end within {format_duration(max(0.0, left))}",
                    available=format_duration(expected.seconds),
                )
            )
    if seconds_left is not None and expected.seconds is not None and expected.seconds > seconds_left:
        found.append(
            Misfit(
                dimension="available_until",
                needed=format_duration(expected.seconds),
                available=f"{format_duration(seconds_left)} until the provider takes it back",
            )
        )
    value, gain = spec.preference.value, worth(spec, expected)
    if value is not None and gain is not None and gain < 0:
        found.append(
            Misfit(
                dimension="value",
                needed=f"cost, carbon and delay of {format_money(value)} or less",
                available=format_money(round(value - gain)),
            )
        )
    return tuple(found)


def least_grams(expected: Expectation) -> float | None:
    """The smallest max_carbon that can be kept there; None: the power is not known."""
    if expected.watts is None or expected.carbon is None:
        return None
    mean = expected.carbon.mean
    return least_keepable_grams(watts=expected.watts, grams_per_kwh=mean.grams_per_kwh)


def _emitted_at_least(expected: Expectation) -> float | None:
    """By the whole job, and in any case until it could be stopped; None: the power is not known."""
    known = [each for each in (expected.carbon_grams, least_grams(expected)) if each is not None]
    return max(known, default=None)


def worth(spec: JobSpec, expected: Expectation) -> float | None:
    """The job's utility there in micro-units; None where its value or its time is not known."""
    if expected.seconds is None or expected.cost is None:
        return None
    grams = expected.counted_grams
    hours = expected.seconds / SECONDS_PER_HOUR
    return utility(spec, Outlook(hours=hours, cost=float(expected.cost), carbon_grams=grams))


def devices_for(spec: JobSpec, offer: Offer) -> tuple[Device, ...] | None:
    """The GPUs that the job would get on the idle offer; None where it has too few.

    Where its torch has kernels for none, those that it would get with another.
    """
    devices = offer.ask.devices
    fitting = fitting_devices(
        spec, devices, offer.ask.torch_variants, offer.standings
    ) or large_enough_devices(spec, devices)
    found = fitting[: spec.resources.gpu_count]
    return found if len(found) == spec.resources.gpu_count else None


def place_of(spec: JobSpec, offer: Offer, devices: Sequence[Device]) -> Place:
    """What predictions depend on; of several GPUs the first stands for all."""
    if not devices:
        return Place(gpu=None, cpu_model=offer.ask.cpu_model)
    first = devices[0]
    return Place(
        gpu=first.model,
        cpu_model=offer.ask.cpu_model,
        memory_bytes=first.memory_bytes,
        standing=offer.standing_of(first),
    )


def class_model(offer: Offer, devices: Sequence[Device]) -> str:
    """The model as classes name it: the variant of a known GPU, else what driver or processor say."""
    if not devices:
        return offer.ask.cpu_model
    known = find_gpu(devices[0].model, memory_bytes=devices[0].memory_bytes)
    return known.variant if known else devices[0].model


def _hazard(offer: Offer, devices: Sequence[Device]) -> float | None:
    """Failures an hour of all the devices together; each counts its host, which errs on the safe side."""
    rates = [offer.standing_of(device).failures_per_hour for device in devices]
    known = [rate for rate in rates if rate is not None]
    return math.fsum(known) if known and len(known) == len(rates) else None


def _longer(hazard: float | None, hours: float) -> float:
    """Expected time over undisturbed time where each fault means to begin anew: (e^x - 1) / x."""
    x = min(HAZARD_MAX, (hazard or 0.0) * hours)
    return math.expm1(x) / x if x > 1e-12 else 1.0


def _watts(spec: JobSpec, devices: tuple[Device, ...] | None, known: Prediction | None) -> float | None:
    """Power as earlier runs drew it, else of the CPU's share and the GPUs by a model."""
    if known is not None and known.joules is not None and known.seconds > 0:
        return known.joules / known.seconds
    if devices is None:
        return None
    wanted = spec.resources
    watts = cpu_watts(cpu_milli=wanted.cpu_milli, memory_bytes=wanted.memory_bytes)
    for device in devices:
        gpu = find_gpu(device.model, memory_bytes=device.memory_bytes)
        limit = device.power_limit_watts or (0.0 if gpu is None else float(gpu.tdp_watts))
        if not limit:
            return None
        watts += gpu_watts(tdp_watts=limit)
    return watts


def _cost(spec: JobSpec, price: int, seconds: float) -> int:
    return charge(
        price_per_device_hour=price, devices_milli=spec.resources.devices_milli, seconds=math.ceil(seconds)
    )
