"""The smallest change to a job that would admit some offer, where none or too few fit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from perak.domain.hardware.standing import GRADES, UNGRADED, suffices
from perak.domain.isolation import RANKS
from perak.domain.job import JobSpec
from perak.domain.market.expect import Expectation, unacceptable, worth
from perak.domain.market.feasible import Misfit, large_enough_devices, misfits, model_fits, price_for
from perak.domain.offer import Offer
from perak.domain.units import MICROS, format_bytes, format_duration, format_money

STEPS_MAX = 3
"""A job that would have to give way in more is another job."""
OFFERS_MAX = 400
"""Offers that are tried, those that fail in the least first: a quote answers at once on a large market."""
SHOWN_MAX = 5
CENT = MICROS // 100
MINUTE = 60

Expecting = Callable[[JobSpec, Offer], Expectation]
"""What is to be expected of the job on the offer."""


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


def relaxations(
    spec: JobSpec, offers: Sequence[Offer], *, now: datetime, expecting: Expecting | None = None
) -> tuple[Relaxation, ...]:
    """For each set of requirements that stand in the way, the least change to them; small sets first.

    `expecting`: by it limits on carbon, deadline and value are judged, too; None: they stand in nobody's way.
    """
    wrong_of = partial(_wrong, now=now, expecting=expecting if _bounded(spec) else None)
    failing = [(len(wrong), offer.id, offer) for offer in offers if (wrong := wrong_of(spec, offer))]
    change_of = partial(_change, now=now, expecting=expecting)
    ways: defaultdict[frozenset[str], list[_Way]] = defaultdict(list)
    for _, _, offer in sorted(failing, key=lambda each: each[:2])[:OFFERS_MAX]:
        if (way := _way(spec, offer, wrong_of, change_of)) is not None:
            ways[frozenset(name for name, _ in way.changes)].append(way)
    least = sorted(ways, key=lambda names: (len(names), sorted(names)))
    # What admits an offer by fewer changes makes larger sets with the same ones needless.
    needed = [names for names in least if not any(other < names for other in least)]
    found = [
        _relaxation(min(ways[names], key=lambda way: way.distance), offers, wrong_of) for names in needed
    ]
    return tuple(found[:SHOWN_MAX])


Wrong = Callable[[JobSpec, Offer], list[Misfit]]
"""In what the offer would not do even if it were idle and open."""


def _bounded(spec: JobSpec) -> bool:
    """Whether the job has limits that are held against what is expected of it."""
    deadline = spec.start is not None and spec.start.deadline_seconds is not None
    return deadline or spec.limits.max_carbon_grams is not None or spec.preference.value is not None


def _wrong(spec: JobSpec, offer: Offer, *, now: datetime, expecting: Expecting | None) -> list[Misfit]:
    hard = [each for each in misfits(spec, offer, now=now) if not each.now_only]
    return hard if expecting is None else [*hard, *unacceptable(spec, expecting(spec, offer))]


def _relaxation(way: _Way, offers: Sequence[Offer], wrong_of: Wrong) -> Relaxation:
    admitted = [offer for offer in offers if not wrong_of(way.spec, offer)]
    prices = [price for o in admitted if (price := price_for(way.spec, o)) is not None]
    return Relaxation(changes=dict(way.changes), offers=len(admitted), price_from=min(prices, default=None))


def _way(spec: JobSpec, offer: Offer, wrong_of: Wrong, change_of: ChangeOf) -> _Way | None:
    """Give way in what fails until the offer fits; None: it can't be had by giving way."""
    changes: list[tuple[str, str]] = []
    distance = 0.0
    for _ in range(STEPS_MAX + 1):
        wrong = wrong_of(spec, offer)
        if not wrong:
            return _Way(spec, tuple(changes), distance)
        changed = change_of(spec, offer, wrong[0].dimension)
        if changed is None or len(changes) == STEPS_MAX or wrong[0].dimension in dict(changes):
            return None
        spec, words, far = changed
        changes.append((wrong[0].dimension, words))
        distance += far
    return None


Change = tuple[JobSpec, str, float]
"""The changed job, what changed in words, and how far it goes: a share of what was asked for."""


ChangeOf = Callable[[JobSpec, Offer, str], Change | None]


def _change(
    spec: JobSpec, offer: Offer, dimension: str, *, now: datetime, expecting: Expecting | None
) -> Change | None:
    if expecting is not None and dimension in _EXPECTED_CHANGES:
        return _EXPECTED_CHANGES[dimension](spec, expecting(spec, offer))
    if dimension == "available_until":
        return _available(spec, offer, now=now)
    change = _CHANGES.get(dimension)
    return None if change is None else change(spec, offer)


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
    if wanted.memory_bytes <= has:
        return None  # It is too little for the sandbox.
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
    """To the best grade that enough of its GPUs have."""
    assert spec.min_grade is not None, "a grade that nobody asked for stands in nobody's way"
    fitting = [offer.standings.get(d.uuid, UNGRADED) for d in large_enough_devices(spec, offer.ask.devices)]
    for steps, grade in enumerate(GRADES[GRADES.index(spec.min_grade) + 1 :], start=1):
        if sum(suffices(each, grade) for each in fitting) >= spec.resources.gpu_count:
            return (
                replace(spec, min_grade=grade),
                f"min_grade {spec.min_grade} lowered to {grade}",
                steps / len(GRADES),
            )
    return replace(spec, min_grade=None), f"min_grade {spec.min_grade} given up", 1.0


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


def _min_duration(spec: JobSpec, offer: Offer) -> Change | None:
    longest, least = spec.limits.duration_seconds, offer.ask.min_duration_seconds
    words = f"max_duration {format_duration(longest)} raised to {format_duration(least)}"
    return _with_duration(spec, least), words, (least - longest) / longest


def _available(spec: JobSpec, offer: Offer, *, now: datetime) -> Change | None:
    longest, left = spec.limits.max_duration_seconds, offer.ask.seconds_left(now=now)
    if longest is None or left is None or not max(MINUTE, offer.ask.min_duration_seconds) <= left < longest:
        return None
    words = f"max_duration {format_duration(longest)} lowered to {format_duration(left)}"
    return _with_duration(spec, left), words, 1 - left / longest


def _with_duration(spec: JobSpec, seconds: int) -> JobSpec:
    return replace(spec, limits=replace(spec.limits, max_duration_seconds=seconds))


def _carbon(spec: JobSpec, expected: Expectation) -> Change | None:
    most, needs = spec.limits.max_carbon_grams, expected.carbon_grams
    if most is None or needs is None:
        return None
    grams = math.ceil(needs * 10) / 10 if needs >= 1 else math.ceil(needs * 1e6) / 1e6
    words = f"max_carbon {most:.4g} g raised to {grams:.6g} g"
    return (
        replace(spec, limits=replace(spec.limits, max_carbon_grams=grams)),
        words,
        grams / max(most, 1e-9) - 1,
    )


def _deadline(spec: JobSpec, expected: Expectation) -> Change | None:
    if spec.start is None or spec.start.deadline_seconds is None or expected.seconds is None:
        return None
    least = math.ceil(expected.seconds / MINUTE) * MINUTE
    words = f"deadline {format_duration(spec.start.deadline_seconds)} raised to {format_duration(least)}"
    far = least / spec.start.deadline_seconds - 1
    return replace(spec, start=replace(spec.start, deadline_seconds=least)), words, far


def _value(spec: JobSpec, expected: Expectation) -> Change | None:
    value, gain = spec.preference.value, worth(spec, expected)
    if value is None or gain is None:
        return None
    least = math.ceil((value - gain) / CENT) * CENT
    words = f"value {format_money(value)} raised to {format_money(least)}"
    return (
        replace(spec, preference=replace(spec.preference, value=least)),
        words,
        least / max(value, CENT) - 1,
    )


_EXPECTED_CHANGES: dict[str, Callable[[JobSpec, Expectation], Change | None]] = {
    "carbon": _carbon,
    "deadline": _deadline,
    "value": _value,
}

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
    "min_duration": _min_duration,
}
"""What a renter can give way in. An image or a network that a provider does not admit is not among it."""
