"""A trace of jobs shifted in time by a policy, and what that saved and cost in waiting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush

import numpy as np

from perak.domain.carbon.pausing import PAUSE_POLICIES, Spans
from perak.domain.carbon.shifting import PRICED, START_POLICIES, Ask, Floats, Lengths
from perak.domain.errors import InvalidInput
from perak.domain.facts.power import CPU_WATTS_PER_CORE
from perak.sim.traces import JobTrace

POLICIES = tuple(dict.fromkeys([*START_POLICIES, *PAUSE_POLICIES]))

MAX_WAIT_SHORT_HOURS = 6.0
MAX_WAIT_LONG_HOURS = 24.0
SHORT_BELOW_HOURS = 2.0
"""The three as in GAIA's figure 8."""

FIRST_GUESS_SHORT, FIRST_GUESS_LONG = 0.5, 4.0
"""Times `short_below`: how long a job may run, as long as none of its queue has ended."""
WAIT_PRICE_MAX = 1e5
"""Where the search for a price begins: at this price (g/kWh x CPU-hours an hour) nobody waits."""
PRICE_STEPS = 24
"""Halvings of it that a search takes: to one part in ten million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How jobs are queued, in hours: below `short_below` they wait up to `max_wait_short`, or the other."""

    policy: str
    interruptible: bool = False
    max_wait_short: float = MAX_WAIT_SHORT_HOURS
    max_wait_long: float = MAX_WAIT_LONG_HOURS
    short_below: float = SHORT_BELOW_HOURS
    wait_price: float = 0.0
    """In g/kWh x hours of one CPU for an hour of waiting."""
    learn_lengths: bool = False
    """A queue knows the lengths of those of its jobs that have ended, and not of all in the trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy came to; carbon at `watts_per_cpu`, which the normalised carbon does not depend on."""

    policy: str
    interruptible: bool
    jobs: int
    carbon_g: float
    normalised_carbon: float
    mean_wait_h: float
    max_wait_h: float
    wait_price_g_per_h: float
    watts_per_cpu: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The spans of each job, in hours, and the intensity that they ran under."""

    setting: Setting
    jobs: JobTrace
    spans: tuple[Spans, ...]
    intensity: Floats

    def waits(self) -> Floats:
        """Hours of each job between its arrival and its end in which it did not run."""
        ends = np.array([spans[-1][1] for spans in self.spans])
        return np.maximum(ends - self.jobs.arrivals - self.jobs.lengths, 0.0)

    def carbon(self) -> Floats:
        """Of each job, in g/kWh x hours of one CPU."""
        owners = np.repeat(np.arange(len(self.spans)), [len(spans) for spans in self.spans])
        bounds = np.array([span for spans in self.spans for span in spans])
        carbon = _emitted(self.intensity, bounds[:, 1]) - _emitted(self.intensity, bounds[:, 0])
        return np.bincount(owners, carbon, minlength=len(self.spans)) * self.jobs.cpus

    def cpus_by_hour(self) -> Floats:
        """CPUs at work in each hour, on the mean of the hour."""
        busy = np.zeros(self.intensity.size)
        for spans, cpus in zip(self.spans, self.jobs.cpus, strict=True):
            for start, end in spans:
                hours = np.arange(int(start), int(np.ceil(end)))
                busy[hours] += cpus * (np.minimum(hours + 1, end) - np.maximum(hours, start))
        return busy


def shift(jobs: JobTrace, intensity: Floats, setting: Setting) -> Schedule:
    """Run every job by the policy. Raises InvalidInput for too short an intensity or a wrong setting."""
    _check(jobs, intensity, setting)
    is_short = jobs.lengths < setting.short_below
    spans: list[Spans] = [()] * jobs.arrivals.size
    for queue, max_wait, first_guess in (
        (is_short, setting.max_wait_short, setting.short_below * FIRST_GUESS_SHORT),
        (~is_short, setting.max_wait_long, setting.short_below * FIRST_GUESS_LONG),
    ):
        if not queue.any():
            continue
        known = _Known(jobs.lengths[queue], learn=setting.learn_lengths, first_guess=first_guess)
        for row in np.flatnonzero(queue)[np.argsort(jobs.arrivals[queue], kind="stable")]:
            ask = Ask(
                arrival=float(jobs.arrivals[row]),
                cpus=float(jobs.cpus[row]),
                max_wait=max_wait,
                lengths=known.at(float(jobs.arrivals[row])),
                intensity=intensity,
                wait_price=setting.wait_price,
            )
            length = float(jobs.lengths[row])
            spans[row] = _spans(ask, length, setting)
            known.will_end(spans[row][-1][1], length)
    return Schedule(setting, jobs, tuple(spans), intensity)


def price(grams_per_hour: float, *, watts_per_cpu: float = CPU_WATTS_PER_CORE) -> float:
    """A price of waiting in grams an hour, as policies count it: g/kWh x hours of one CPU."""
    return grams_per_hour / watts_per_cpu * 1000


def outcome(schedule: Schedule, *, watts_per_cpu: float = CPU_WATTS_PER_CORE) -> Outcome:
    """The figures of a schedule, beside starting every job at once."""
    jobs, waits = schedule.jobs, schedule.waits()
    at_once = _emitted(schedule.intensity, jobs.arrivals + jobs.lengths)
    at_once = (at_once - _emitted(schedule.intensity, jobs.arrivals)) * jobs.cpus
    carbon = float(schedule.carbon().sum())
    return Outcome(
        policy=schedule.setting.policy,
        interruptible=schedule.setting.interruptible,
        jobs=jobs.arrivals.size,
        carbon_g=carbon * watts_per_cpu / 1000,
        normalised_carbon=carbon / float(at_once.sum()) if at_once.any() else 1.0,
        mean_wait_h=float(waits.mean()),
        max_wait_h=float(waits.max()),
        wait_price_g_per_h=schedule.setting.wait_price * watts_per_cpu / 1000,
        watts_per_cpu=watts_per_cpu,
    )


def price_for_wait(jobs: JobTrace, intensity: Floats, setting: Setting, *, mean_wait: float) -> float:
    """The lowest price of an hour of waiting at which jobs wait `mean_wait` hours at most, on the mean."""
    if setting.policy not in PRICED:
        raise InvalidInput(
            f"{setting.policy} has no price of waiting. Those that have: {', '.join(sorted(PRICED))}."
        )

    def waits(price: float) -> float:
        return float(shift(jobs, intensity, replace(setting, wait_price=price)).waits().mean())

    low, high = 0.0, WAIT_PRICE_MAX
    if waits(low) <= mean_wait:
        return low
    for _ in range(PRICE_STEPS):
        # Prices lie far apart, so the search halves their ratio once it has left zero.
        middle = (low * high) ** 0.5 if low else high / 8
        low, high = (middle, high) if waits(middle) > mean_wait else (low, middle)
        if high - low < 1e-3 * high:
            break
    return high


class _Known:
    """What a queue knows of its jobs' lengths: those of all, or of the jobs that have ended by then."""

    def __init__(self, lengths: Floats, *, learn: bool, first_guess: float) -> None:
        self._learn = learn
        self._running: list[tuple[float, float]] = []
        self._ended: list[float] = []
        self._lengths = Lengths.of([first_guess]) if learn else Lengths.of(lengths)

    def at(self, now: float) -> Lengths:
        if self._running and self._running[0][0] <= now:
            while self._running and self._running[0][0] <= now:
                self._ended.append(heappop(self._running)[1])
            self._lengths = Lengths.of(self._ended)
        return self._lengths

    def will_end(self, at: float, length: float) -> None:
        if self._learn:
            heappush(self._running, (at, length))


def _spans(ask: Ask, length: float, setting: Setting) -> Spans:
    if setting.interruptible and setting.policy in PAUSE_POLICIES:
        return PAUSE_POLICIES[setting.policy](ask, length)
    start = START_POLICIES[setting.policy](ask)
    return ((start, start + length),)


def _check(jobs: JobTrace, intensity: Floats, setting: Setting) -> None:
    if setting.policy not in POLICIES:
        raise InvalidInput(f"There is no policy {setting.policy!r}. There are {', '.join(POLICIES)}.")
    if setting.policy not in START_POLICIES and not setting.interruptible:
        raise InvalidInput(
            f"{setting.policy} pauses jobs, and these can't be interrupted. Add --interruptible."
        )
    is_short = jobs.lengths < setting.short_below
    needed = 0.0
    for queue, max_wait in ((is_short, setting.max_wait_short), (~is_short, setting.max_wait_long)):
        if max_wait < 0:
            raise InvalidInput(f"A limit of {max_wait:g} h is in the past. Give zero or more.")
        if queue.any():
            needed = max(needed, float(jobs.arrivals[queue].max() + max_wait + jobs.lengths[queue].max()))
    if needed > intensity.size:
        raise InvalidInput(
            f"The intensity has {intensity.size} hours, and a job could end in hour {int(np.ceil(needed))}. "
            "Give more hours, shorter waits or fewer jobs."
        )


def _emitted(intensity: Floats, until: Floats) -> Floats:
    """The integral of the intensity from hour 0 to `until`."""
    total = np.concatenate([[0.0], np.cumsum(intensity)])
    return np.asarray(np.interp(until, np.arange(total.size), total), dtype=np.float64)
