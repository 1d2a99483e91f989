"""What a job would cost, draw and emit on each offer, and for those that don't fit, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from perak.domain.carbon.energy import cpu_watts, gpu_watts, operational_carbon
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.hardware.prices import comparison
from perak.domain.hardware.specs import find_gpu
from perak.domain.job import JobSpec
from perak.domain.market.feasible import (
    Misfit,
    fitting_devices,
    large_enough_devices,
    misfits,
    price_for,
)
from perak.domain.offer import Device, Offer, SandboxTier
from perak.domain.outcome import hold_for
from perak.domain.units import SECONDS_PER_HOUR, charge


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferQuote:
    """The job on one offer. Money in micro-units; `cost_max` is for the job's whole max_duration.

    `price` is per device-hour, `per_hour` price x devices; None where the offer has no price for the job.
    Watts are expected at full use; None where the device is not in the tables.
    """

    offer: Offer
    sandbox: SandboxTier
    """The one that the job would get, the offer's default where none suffices."""
    device: str
    misfits: tuple[Misfit, ...]
    price: int | None
    per_hour: int | None
    cost_max: int | None
    watts: float | None
    carbon_grams_per_hour: float | None
    carbon_source: str | None
    cloud_comparison: str | None

    @property
    def fits(self) -> bool:
        return not self.misfits


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Fitting offers, cheapest first, then the others; and what would be held at submission."""

    hold: int
    affordable: bool
    offers: tuple[OfferQuote, ...]


def quote(spec: JobSpec, offers: Sequence[Offer], *, available: int, currency: str, now: datetime) -> Quote:
    """The job on every offer; `available` is what the wallet could hold, in micro-units of `currency`."""
    quotes = [_on_offer(spec, offer, currency=currency, now=now) for offer in offers]
    hold = hold_for(
        price=_price_to_hold(spec, quotes),
        devices_milli=spec.resources.devices_milli,
        seconds=spec.limits.duration_seconds,
        max_cost=spec.limits.max_cost,
        available=available,
    )
    return Quote(
        hold=hold.amount, affordable=hold.amount <= available, offers=tuple(sorted(quotes, key=_order))
    )


def _order(item: OfferQuote) -> tuple[bool, int, int, str]:
    return (not item.fits, len(item.misfits), item.price if item.price is not None else 2**63, item.offer.id)


def _price_to_hold(spec: JobSpec, quotes: Sequence[OfferQuote]) -> int:
    """The cheapest price of an offer that fits, now or when it is idle; else the renter's own limit."""
    prices = [q.price for q in quotes if q.price is not None and all(m.now_only for m in q.misfits)]
    return min(prices, default=spec.limits.max_price or 0)


def _on_offer(spec: JobSpec, offer: Offer, *, currency: str, now: datetime) -> OfferQuote:
    price, milli = price_for(spec, offer), spec.resources.devices_milli
    devices = _devices(spec, offer)
    watts = _watts(spec, devices)
    intensity = yearly_intensity(offer.ask.region)
    carbon = None if watts is None else operational_carbon(watts * SECONDS_PER_HOUR, intensity)
    return OfferQuote(
        offer=offer,
        sandbox=offer.ask.sandbox(
            offer.ask.tier_for(spec.isolation, with_devices=spec.resources.gpu_count > 0)
        ),
        device=_device_text(offer, devices),
        misfits=misfits(spec, offer, now=now),
        price=price,
        per_hour=None if price is None else _cost(price, milli, SECONDS_PER_HOUR),
        cost_max=None if price is None else _cost(price, milli, spec.limits.duration_seconds),
        watts=watts,
        carbon_grams_per_hour=carbon.grams if carbon else None,
        carbon_source=f"{carbon.region} {carbon.year}, {carbon.method}: {carbon.source}" if carbon else None,
        cloud_comparison=_comparison(devices, price, currency),
    )


def _cost(price: int, milli: int, seconds: int) -> int:
    return charge(price_per_device_hour=price, devices_milli=milli, seconds=seconds)


def _devices(spec: JobSpec, offer: Offer) -> tuple[Device, ...]:
    """The GPUs that the job would get on the idle offer; fewer than it wants where there are no more.

    Where its torch has kernels for none, those that it would get with another.
    """
    devices = offer.ask.devices
    fitting = fitting_devices(spec, devices, offer.ask.torch_variants) or large_enough_devices(spec, devices)
    return fitting[: spec.resources.gpu_count]


def _device_text(offer: Offer, devices: tuple[Device, ...]) -> str:
    if devices:
        return f"{len(devices)} x {devices[0].model}"
    return offer.ask.cpu_model


def _watts(spec: JobSpec, devices: tuple[Device, ...]) -> float | None:
    """Power of the CPU's share and of the GPUs; None where a GPU is missing or unknown."""
    wanted = spec.resources
    if len(devices) < wanted.gpu_count:
        return None
    watts = cpu_watts(cpu_milli=wanted.cpu_milli, memory_bytes=wanted.memory_bytes)
    for device in devices:
        known = find_gpu(device.model, memory_bytes=device.memory_bytes)
        limit = device.power_limit_watts or (known and float(known.tdp_watts))
        if not limit:
            return None
        watts += gpu_watts(tdp_watts=limit)
    return watts


def _comparison(devices: tuple[Device, ...], price: int | None, currency: str) -> str | None:
    if not devices or price is None:
        return None
    first = devices[0]
    found = comparison(first.model, price, currency=currency, memory_bytes=first.memory_bytes)
    return str(found) if found else None
