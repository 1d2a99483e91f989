"""How likely a device fails while a job runs, what is lost then, and how often to write a checkpoint.

A device's rate of failure is its class's, times what its own condition makes of it; a class's rate is a
Gamma prior that the network's own failures update. The host that leaves comes on top. Age is not in it: on
Titan the batch and the heat decided, not the years (docs/hazard.md). Rates are per hour, durations in hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_PER_YEAR = 8_766.0
CLASS_PRIOR_FAILURES = 2.0
CLASS_PRIOR_YEARS = 40.0
"""Gamma(2, 40 GPU-years): 5% a year, as StepFun's 5.2%, and so little of it that a bad batch soon shows: five
failures in ten GPU-years triple it."""
BETA = 0.35
"""Each 10 points of score less raise the rate by e^0.35 = 1.42. Chosen without data: to be fitted."""
SCORE_UNKNOWN = 70.0
"""Of a device that nobody inspected: missing is not good. Its rate is 2.9 times that of a perfect one."""
HOST_PRIOR_DEPARTURES = 1.0
HOST_PRIOR_HOURS = 24.0
"""A machine of which nothing is known leaves once a day."""
EXPONENT_MAX = 50.0
"""e^50 retries are as good as never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A Gamma belief about a rate: `events` seen in `exposure`, the prior's included."""

    events: float
    exposure: float

    @property
    def mean(self) -> float:
        return self.events / self.exposure

    def after(self, *, events: float, exposure: float) -> Rate:
        """The belief after so many more events in so much more time."""
        return Rate(events=self.events + events, exposure=self.exposure + exposure)

    def probability(self, duration: float) -> float:
        """Of one event or more within `duration`, in the exposure's unit, over all that the rate may be."""
        return -math.expm1(-self.events * math.log1p(duration / self.exposure))


CLASS_PRIOR = Rate(events=CLASS_PRIOR_FAILURES, exposure=CLASS_PRIOR_YEARS)
"""Per GPU-year."""
HOST_PRIOR = Rate(events=HOST_PRIOR_DEPARTURES, exposure=HOST_PRIOR_HOURS)
"""Per hour."""


def device_failures_per_hour(*, failures: float, device_years: float, score: float | None) -> float:
    """Of one device: its class's rate after `failures` in `device_years`, by its own score (0 to 100)."""
    known = SCORE_UNKNOWN if score is None else min(100.0, max(0.0, score))
    of_class = CLASS_PRIOR.after(events=failures, exposure=device_years).mean
    return of_class * math.exp(BETA * (100.0 - known) / 10.0) / HOURS_PER_YEAR


def host_departures_per_hour(*, departures: float, hours: float) -> float:
    """Of one machine that left so often in so many hours of being online."""
    return HOST_PRIOR.after(events=departures, exposure=hours).mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What failures mean for a run of `hours` of work.

    `checkpoint_seconds`: how often to write one; None: none can be written, and every failure starts anew.
    """

    failures_per_hour: float
    probability: float
    lost_hours: float
    checkpoint_seconds: float | None


def risk(
    failures_per_hour: float,
    *,
    hours: float,
    checkpoint_cost_hours: float | None = None,
    restart_hours: float = 0.0,
) -> Risk:
    """Of a run that is `hours` long without failures, at the rate of its devices and their host together.

    `lost_hours`: expected time beyond `hours`: work done again, checkpoints written, restarts. Without
    checkpoints the expected time is `(e^(rate * hours) - 1) / rate`; with them the run is a row of such short
    ones, each with its checkpoint (Daly 2006).
    """
    rate = failures_per_hour
    probability = -math.expm1(-rate * hours)
    if rate <= 0:
        return Risk(failures_per_hour=0.0, probability=0.0, lost_hours=0.0, checkpoint_seconds=None)
    if checkpoint_cost_hours is None or checkpoint_cost_hours <= 0:
        lost = _expected(rate, hours, restart_hours) - hours
        return Risk(failures_per_hour=rate, probability=probability, lost_hours=lost, checkpoint_seconds=None)
    interval = checkpoint_interval_hours(cost_hours=checkpoint_cost_hours, failures_per_hour=rate)
    segments = max(1.0, hours / interval)
    each = _expected(rate, hours / segments + checkpoint_cost_hours, restart_hours)
    return Risk(
        failures_per_hour=rate,
        probability=probability,
        lost_hours=segments * each - hours,
        checkpoint_seconds=interval * 3600,
    )


def checkpoint_interval_hours(*, cost_hours: float, failures_per_hour: float) -> float:
    """Work between two checkpoints: Daly's higher-order optimum, at first order Young's `sqrt(2 c M)`.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", 2006: above a
    cost of twice the mean time to failure, that time itself.
    """
    mean = 1 / failures_per_hour
    if cost_hours >= 2 * mean:
        return mean
    ratio = math.sqrt(cost_hours / (2 * mean))
    return math.sqrt(2 * cost_hours * mean) * (1 + ratio / 3 + ratio**2 / 9) - cost_hours


def _expected(rate: float, work: float, restart: float) -> float:
    """Hours until `work` was done in one piece."""
    return (1 / rate + restart) * math.expm1(min(EXPONENT_MAX, rate * work))
