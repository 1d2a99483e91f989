"""Start a deferrable job now, or wait for a better price or cleaner power: decided anew at each look.

Whoever waits is bound by the job's own window: it never waits beyond `start.within`, nor so long that what is
expected of it would end after its deadline. Forecasts err, so that a little to be gained is not waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from perak.domain.carbon.placement import STEP_SECONDS, YEARLY_GRID, Grid, PlacementCarbon
from perak.domain.job import JobSpec
from perak.domain.market.expect import Expectation, class_model, devices_for
from perak.domain.offer import Offer
from perak.domain.units import SECONDS_PER_HOUR, format_money
from perak.domain.whereabouts import CLAIMED, Whereabouts

OPTIONS_MAX = 16
"""Offers that a deferrable job's start is weighed at, those that it likes best now first."""
GAIN_MIN = 0.02
"""Of what the job costs its renter now: less is within the forecasts' error, and not worth a wait."""
HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceProfile:
    """What was paid by hour of the day (UTC), as a share of the day's mean; by model, from the price history.

    A class that is not in it is expected to stay at its price.
    """

    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def ratio(self, model: str, *, now: datetime, wait_seconds: float) -> float:
        """The price then over the price now."""
        shares = self.shares.get(model)
        if shares is None:
            return 1.0
        then = now + timedelta(seconds=wait_seconds)
        return shares[then.hour] / shares[now.hour] if shares[now.hour] > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A place where the job could start now, its price in micro-units per device-hour, and what to expect."""

    offer: str
    model: str
    region: str
    price: int
    expected: Expectation
    where: Whereabouts = CLAIMED
    brought_bytes: int = 0

    @classmethod
    def at(
        cls, spec: JobSpec, offer: Offer, *, price: int, expected: Expectation, brought_bytes: int = 0
    ) -> Option:
        """The job at the offer, and what to expect there; `brought_bytes`: what has to be brought."""
        return cls(
            offer=offer.id,
            model=class_model(offer, devices_for(spec, offer) or ()),
            region=offer.ask.region,
            price=price,
            expected=expected,
            where=offer.where,
            brought_bytes=brought_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`wait_seconds` 0: start now at `offer`. `gain`: micro-units, carbon and delay counted, that waiting is
    expected to bring; `why` in words.

    `saved_grams`, `saved_cost`: operational CO2e and micro-units that are expected to be less than with the
    best start now, wherever that is; below zero: more. None: the power, or the time, is not known.
    """

    offer: str
    wait_seconds: int
    gain: float = 0.0
    saved_grams: float | None = None
    saved_cost: float | None = None
    why: str = "no later start is expected to be better"


def latest_wait(spec: JobSpec, *, now: datetime, submitted_at: datetime, needs_seconds: float | None) -> int:
    """Seconds that the job may still wait; 0 where it is not deferrable, or must start now.

    `needs_seconds`: the upper end of what it is expected to take; None: not known, so max_duration counts.
    """
    if spec.start is None:
        return 0
    waited = (now - submitted_at).total_seconds()
    left = spec.start.within_seconds - waited
    if spec.start.deadline_seconds is not None:
        needs = spec.limits.duration_seconds if needs_seconds is None else needs_seconds
        left = min(left, spec.start.deadline_seconds - waited - needs)
    return max(0, int(left))


def decide(
    spec: JobSpec,
    options: Sequence[Option],
    *,
    now: datetime,
    submitted_at: datetime,
    prices: PriceProfile | None = None,
    grid: Grid = YEARLY_GRID,
) -> Verdict:
    """The best start of all options: now, or at a later step of STEP_SECONDS; of equal ones the earliest."""
    assert options, "where nothing fits there is nothing to decide"
    prices = prices or PriceProfile()
    found = [
        each
        for option in options
        for each in _starts(spec, option, now=now, submitted_at=submitted_at, prices=prices, grid=grid)
    ]
    at_once = min((each for each in found if each.wait_seconds == 0), key=lambda each: each.burden)
    best = min(found, key=lambda each: (each.burden, each.wait_seconds))
    gain = at_once.burden - best.burden
    if best.wait_seconds == 0 or gain < GAIN_MIN * abs(at_once.burden):
        return Verdict(offer=at_once.offer, wait_seconds=0)
    at = now + timedelta(seconds=best.wait_seconds)
    return Verdict(
        offer=best.offer,
        wait_seconds=best.wait_seconds,
        gain=gain,
        saved_grams=None if at_once.grams is None or best.grams is None else at_once.grams - best.grams,
        saved_cost=None if at_once.paid is None or best.paid is None else at_once.paid - best.paid,
        why=f"it waits until about {at:%a %H:%M} UTC: {best.why}, worth {format_money(round(gain))}",
    )


class Start(NamedTuple):
    """A start of the job somewhere. `burden`: cost, carbon and delay in micro-units; `paid`: cost alone, None
    where the time is not known; `grams`: operational CO2e, None where that or the power is not known."""

    burden: float
    wait_seconds: int
    offer: str
    why: str
    paid: float | None
    grams: float | None


def _starts(
    spec: JobSpec,
    option: Option,
    *,
    now: datetime,
    submitted_at: datetime,
    prices: PriceProfile,
    grid: Grid,
) -> list[Start]:
    expected, wants = option.expected, spec.preference
    hours = expected.seconds / SECONDS_PER_HOUR if expected.seconds is not None else 1.0
    cost = option.price * spec.resources.devices_milli / 1000 * hours
    latest = latest_wait(spec, now=now, submitted_at=submitted_at, needs_seconds=expected.high_seconds)
    carbons = _carbons(option, hours, now=now, latest=latest, grid=grid)
    grams = [0.0 if each is None else each.counted_grams for each in carbons]
    known = expected.seconds is not None
    found: list[Start] = []
    for index, wait in enumerate(range(0, latest + 1, STEP_SECONDS)):
        paid = cost * prices.ratio(option.model, now=now, wait_seconds=wait)
        carbon = grams[index] / 1000 * wants.carbon_price_per_kg
        delay = (wait / SECONDS_PER_HOUR + hours) * wants.delay_cost_per_hour
        cheaper = cost - paid > (grams[0] - grams[index]) / 1000 * wants.carbon_price_per_kg
        why = "a better price is usual then" if cheaper else "power is expected to be cleaner then"
        emitted = carbons[index]
        found.append(
            Start(
                burden=paid + carbon + delay,
                wait_seconds=wait,
                offer=option.offer,
                why=why,
                paid=paid if known else None,
                grams=emitted.grams if known and emitted is not None else None,
            )
        )
    return found


def _carbons(
    option: Option, hours: float, *, now: datetime, latest: int, grid: Grid
) -> Sequence[PlacementCarbon | None]:
    """What the run emits at each start; None where its power is not known."""
    steps = latest // STEP_SECONDS + 1
    if option.expected.watts is None:
        return [None] * steps
    starts = grid.starts(
        region=option.region,
        watts=option.expected.watts,
        seconds=hours * SECONDS_PER_HOUR,
        now=now.timestamp(),
        latest_wait_seconds=latest,
        where=option.where,
        transfer_bytes=option.brought_bytes,
    )
    return [each.carbon for each in starts]


def profile(paid: Mapping[str, Mapping[int, tuple[float, int]]], *, trades_min: int = 20) -> PriceProfile:
    """From (mean price, trades) by model and hour of the day: hours without trades count as the mean.

    A model with fewer than `trades_min` trades has no profile: it would be noise.
    """
    shares = {}
    for model, hours in paid.items():
        total = sum(trades for _, trades in hours.values())
        mean = sum(price * trades for price, trades in hours.values()) / total if total else 0.0
        if total >= trades_min and mean > 0:
            shares[model] = tuple(
                hours[hour][0] / mean if hour in hours else 1.0 for hour in range(HOURS_A_DAY)
            )
    return PriceProfile(shares=shares)
