"""When a job that can wait starts: the policies, given the hours ahead and what a queue knows of its jobs.

Times are hours since the intensity's first hour, intensities g/kWh by the hour, and work is counted in hours
of one CPU. A policy never learns how long a job really is: it is told the lengths of the queue's jobs. Source
of the published ones: GAIA (Hanafy et al., "Going Green for Less Green", ASPLOS 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PUBLISHED_STEP_HOURS = 1.0
"""GAIA's policies try a start every hour from the arrival on."""
STEP_HOURS = 0.25
"""Ours tries four an hour: the intensity changes at full hours, and arrivals lie anywhere between."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What is known of how long the jobs of a queue run: the lengths of others, in hours, sorted."""

    hours: Floats
    _below: Floats
    """Sum of the lengths before each, with a zero in front."""

    @classmethod
    def of(cls, hours: npt.ArrayLike) -> Lengths:
        known = np.sort(np.asarray(hours, dtype=np.float64))
        assert known.size, "a queue knows at least one length"
        return cls(known, np.concatenate([[0.0], np.cumsum(known)]))

    @property
    def mean(self) -> float:
        return float(self._below[-1]) / self.hours.size

    @property
    def longest(self) -> float:
        return float(self.hours[-1])

    def as_mean(self) -> Lengths:
        """As if all jobs had the mean length, which is all that the published policies use."""
        return Lengths.of([self.mean])

    def ran_within(self, hours: Floats) -> Floats:
        """How long a job is expected to have run `hours` after its start; below zero it has not started."""
        ended = np.searchsorted(self.hours, hours)
        within = (self._below[ended] + (self.hours.size - ended) * hours) / self.hours.size
        return np.maximum(within, 0.0)

    def remaining_after(self, hours: float) -> float:
        """How much longer a job is expected to run that ran for `hours`; at least a minute, as it runs."""
        first = int(np.searchsorted(self.hours, hours, side="right"))
        longer = self.hours.size - first
        if longer == 0:
            return 1 / 60
        return max(1 / 60, float(self._below[-1] - self._below[first]) / longer - hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A job that arrived, as far as a policy may know it."""

    arrival: float
    cpus: float
    max_wait: float
    lengths: Lengths
    intensity: Floats
    """By the hour, known or forecast, at least to the end of the longest job that waits to the limit."""
    wait_price: float = 0.0
    """What an hour of waiting is worth, in g/kWh x hours of one CPU."""


def expected_carbon(starts: Floats, lengths: Lengths, intensity: Floats) -> Floats:
    """Carbon of one CPU for each start, as the mean over `lengths`, in g/kWh x h."""
    first = int(starts[0])
    past = math.ceil(float(starts[-1]) + lengths.longest)
    assert past <= intensity.size, "the intensity reaches to the end of the longest job"
    edges = np.arange(first, past + 1)
    share = np.diff(lengths.ran_within(edges[None, :] - starts[:, None]), axis=1)
    return np.asarray(share @ intensity[first:past], dtype=np.float64)


def no_wait(ask: Ask) -> float:
    """Start at once."""
    return ask.arrival


def lowest_slot(ask: Ask) -> float:
    """Start in the cleanest single hour within the limit, whatever follows it."""
    first, last = int(ask.arrival), int(ask.arrival + ask.max_wait)
    hour = first + int(np.argmin(ask.intensity[first : last + 1]))
    return max(ask.arrival, float(hour))


def lowest_window(ask: Ask) -> float:
    """Start where a job of the queue's mean length emits least."""
    starts = _starts(ask, PUBLISHED_STEP_HOURS)
    return float(starts[np.argmin(expected_carbon(starts, ask.lengths.as_mean(), ask.intensity))])


def carbon_time(ask: Ask) -> float:
    """Start where a job of the queue's mean length saves most carbon for each hour until it is done."""
    starts = _starts(ask, PUBLISHED_STEP_HOURS)
    carbon = expected_carbon(starts, ask.lengths.as_mean(), ask.intensity)
    return float(starts[np.argmax((carbon[0] - carbon) / (starts - ask.arrival + ask.lengths.mean))])


def carbon_and_wait(ask: Ask) -> float:
    """Start where carbon + price x wait is least, for one CPU and the queue's mean length."""
    starts = _starts(ask, PUBLISHED_STEP_HOURS)
    carbon = expected_carbon(starts, ask.lengths.as_mean(), ask.intensity)
    return float(starts[np.argmin(carbon + ask.wait_price * (starts - ask.arrival))])


def perak(ask: Ask) -> float:
    """Start where the expected carbon of all its CPUs + price x wait is least.

    What it adds to `carbon_and_wait`: it takes the mean of the carbon over all lengths in the queue and not
    the carbon of the mean length, so that an hour counts by how many jobs still run then; a job with more
    CPUs, which saves more, waits longer; and it tries four starts an hour.
    """
    starts = _starts(ask, STEP_HOURS)
    carbon = ask.cpus * expected_carbon(starts, ask.lengths, ask.intensity)
    return float(starts[np.argmin(carbon + ask.wait_price * (starts - ask.arrival))])


StartPolicy = Callable[[Ask], float]

START_POLICIES: dict[str, StartPolicy] = {
    "no-wait": no_wait,
    "lowest-slot": lowest_slot,
    "lowest-window": lowest_window,
    "carbon-time": carbon_time,
    "carbon+wait": carbon_and_wait,
    "perak": perak,
}
"""Those that choose one start, for jobs that can't be interrupted."""
PRICED = frozenset({"carbon+wait", "perak"})
"""Those that weigh an hour of waiting against carbon."""


def _starts(ask: Ask, step: float) -> Floats:
    """From the arrival to the limit, ascending."""
    waits = np.arange(math.floor(ask.max_wait / step) + 1, dtype=np.float64) * step
    return ask.arrival + waits
