"""The smallest change to a job that would admit some offer, where none or too few fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from perak.domain.isolation import RANKS
from perak.domain.job import JobSpec
from perak.domain.market.feasible import large_enough_devices, misfits, model_fits, price_for
from perak.domain.offer import Offer
from perak.domain.units import format_bytes, format_money

STEPS_MAX = 3
"""A job that would have to give way in more is another job."""
OFFERS_MAX = 400
"""Offers that are tried, those that fail in the least first: a quote answers at once on a large market."""
SHOWN_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """Requirements to give way in, in words, and how many offers would then fit, from which price.

    `changes`: dimension -> what it would become, as it is shown. Prices in micro-units per device-hour.
    """

    changes: dict[str, str]
    offers: int
    price_from: int | None

    def __str__(self) -> str:
        what = " and ".join(self.changes.values())
        price = "" if self.price_from is None else f" from {format_money(self.price_from)}/h"
        return f"{what}: {self.offers} {'offer' if self.offers == 1 else 'offers'}{price}"


@dataclass(frozen=True, slots=True)
class _Way:
    """A chain of changes that admits one offer: the job so changed, and how far each change goes."""

    spec: JobSpec
    changes: tuple[tuple[str, str], ...]
    distance: float


def relaxations(spec: JobSpec, offers: Sequence[Offer], *, now: datetime) -> tuple[Relaxation, ...]:
    """For each set of requirements that stand in the way, the least change to them; small sets first."""
    failing = [
        (len(wrong), offer.id, offer)
        for offer in offers
        if (wrong := [each for each in misfits(spec, offer, now=now) if not each.now_only])
    ]
    ways: defaultdict[frozenset[str], list[_Way]] = defaultdict(list)
    for _, _, offer in sorted(failing, key=lambda each: each[:2])[:OFFERS_MAX]:
        if (way := _way(spec, offer, now=now)) is not None:
            ways[frozenset(name for name, _ in way.changes)].append(way)
    least = sorted(ways, key=lambda names: (len(names), sorted(names)))
    # What admits an offer by fewer changes makes larger sets with the same ones needless.
    needed = [names for names in least if not any(other < names for other in least)]
    found = [_relaxation(min(ways[names], key=lambda way: way.distance), offers, now=now) for names in needed]
    return tuple(found[:SHOWN_MAX])


def _relaxation(way: _Way, offers: Sequence[Offer], *, now: datetime) -> Relaxation:
    admitted = [o for o in offers if all(m.now_only for m in misfits(way.spec, o, now=now))]
    prices = [price for o in admitted if (price := price_for(way.spec, o)) is not None]
    return Relaxation(changes=dict(way.changes), offers=len(admitted), price_from=min(prices, default=None))


def _way(spec: JobSpec, offer: Offer, *, now: datetime) -> _Way | None:
    """Give way in what fails until the offer fits; None: it can't be had by giving way."""
    changes: list[tuple[str, str]] = []
    distance = 0.0
    for _ in range(STEPS_MAX + 1):
        wrong = [each for each in misfits(spec, offer, now=now) if not each.now_only]
        if not wrong:
            return _Way(spec, tuple(changes), distance)
        change = _CHANGES.get(wrong[0].dimension)
        changed = None if change is None else change(spec, offer)
        if changed is None or len(changes) == STEPS_MAX:
            return None
        spec, words, far = changed
        changes.append((wrong[0].dimension, words))
        distance += far
    return None


Change = tuple[JobSpec, str, float]
"""The changed job, what changed in words, and how far it goes: a share of what was asked for."""


def _gpu(spec: JobSpec, offer: Offer) -> Change | None:
    wanted = spec.resources
    models = sorted({device.model for device in offer.ask.devices})
    if not models or not wanted.gpu_models:
        return None
    widened = replace(wanted, gpu_models=(*wanted.gpu_models, models[0]))
    return replace(spec, resources=widened), f"gpu widened to {' or '.join(widened.gpu_models)}", 1.0


def _gpu_memory(spec: JobSpec, offer: Offer) -> Change | None:
    wanted = spec.resources
    sizes = [d.memory_bytes for d in offer.ask.devices if model_fits(wanted.gpu_models, d.model)]
    if not sizes:
        return None
    words = f"gpu_memory {format_bytes(wanted.gpu_memory_bytes)} lowered to {format_bytes(max(sizes))}"
    return (
        replace(spec, resources=replace(wanted, gpu_memory_bytes=max(sizes))),
        words,
        1 - max(sizes) / wanted.gpu_memory_bytes,
    )


def _gpu_count(spec: JobSpec, offer: Offer) -> Change | None:
    wanted, has = spec.resources, len(large_enough_devices(spec, offer.ask.devices))
    if not 0 < has < wanted.gpu_count:
        return None
    words = f"gpu_count {wanted.gpu_count} lowered to {has}"
    return replace(spec, resources=replace(wanted, gpu_count=has)), words, 1 - has / wanted.gpu_count


def _cpu(spec: JobSpec, offer: Offer) -> Change | None:
    wanted, has = spec.resources, offer.ask.cpu_milli
    words = f"cpu {wanted.cpu_milli / 1000:g} lowered to {has / 1000:g}"
    return replace(spec, resources=replace(wanted, cpu_milli=has)), words, 1 - has / wanted.cpu_milli


def _memory(spec: JobSpec, offer: Offer) -> Change | None:
    wanted, has = spec.resources, offer.ask.memory_bytes
    words = f"memory {format_bytes(wanted.memory_bytes)} lowered to {format_bytes(has)}"
    return replace(spec, resources=replace(wanted, memory_bytes=has)), words, 1 - has / wanted.memory_bytes


def _disk(spec: JobSpec, offer: Offer) -> Change | None:
    wanted, has = spec.resources, offer.ask.disk_bytes
    words = f"disk {format_bytes(wanted.disk_bytes)} lowered to {format_bytes(has)}"
    return replace(spec, resources=replace(wanted, disk_bytes=has)), words, 1 - has / wanted.disk_bytes


def _python(spec: JobSpec, offer: Offer) -> Change | None:
    if spec.python is None or not offer.ask.pythons:
        return None
    wanted = _minor(spec.python.version)
    nearest = min(offer.ask.pythons, key=lambda version: (abs(_minor(version) - wanted), version))
    words = f"python {spec.python.version} changed to {nearest}"
    changed = replace(spec, python=replace(spec.python, version=nearest))
    return changed, words, abs(_minor(nearest) - wanted) / 10


def _minor(version: str) -> int:
    tail = version.rpartition(".")[2]
    return int(tail) if tail.isdigit() else 0


def _region(spec: JobSpec, offer: Offer) -> Change | None:
    widened = (*spec.regions, offer.ask.region)
    return replace(spec, regions=widened), f"regions widened to {' or '.join(widened)}", 1.0


def _grade(spec: JobSpec, offer: Offer) -> Change | None:
    words = f"min_grade {spec.min_grade} given up"
    return replace(spec, min_grade=None), words, 1.0


def _isolation(spec: JobSpec, offer: Offer) -> Change | None:
    with_devices = spec.resources.gpu_count > 0
    tiers = [t.tier for t in offer.ask.sandboxes() if t.tier in RANKS and (t.devices or not with_devices)]
    if spec.isolation is None or not tiers:
        return None
    best = max(tiers, key=lambda tier: RANKS[tier])
    far = (RANKS[spec.isolation] - RANKS[best]) / 4
    return replace(spec, isolation=best), f"isolation {spec.isolation} lowered to {best}", far


def _price(spec: JobSpec, offer: Offer) -> Change | None:
    price, limit = price_for(spec, offer), spec.limits.max_price
    if price is None or limit is None:
        return None
    words = f"max_price {format_money(limit)}/h raised to {format_money(price)}/h"
    raised = replace(spec, limits=replace(spec.limits, max_price=price))
    return raised, words, (price - limit) / max(1, limit)


_CHANGES: dict[str, Callable[[JobSpec, Offer], Change | None]] = {
    "gpu": _gpu,
    "gpu_memory": _gpu_memory,
    "gpu_count": _gpu_count,
    "cpu": _cpu,
    "memory": _memory,
    "disk": _disk,
    "python": _python,
    "region": _region,
    "grade": _grade,
    "isolation": _isolation,
    "price": _price,
}
"""What a renter can give way in. An image or a network that a provider does not admit is not among it."""
