"""Which hours a job runs in that can be interrupted; times and units as in `shifting`.

A policy is asked again at every full hour. Spans are (start, end) in hours, ascending; together they are as
long as the job, and the hours between the arrival and the end in which it does not run are at most the limit.
Sources: Ecovisor (Souza et al., ASPLOS 2023) as GAIA (ASPLOS 2024) runs it; Wait Awhile (Wiesner et al.,
Middleware 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from perak.domain.carbon.shifting import Ask, Floats

Spans = tuple[tuple[float, float], ...]

ECOVISOR_SHARE = 0.3
"""GAIA lets Ecovisor run below the 30th percentile of the day that follows the arrival."""
ECOVISOR_HOURS = 24

_EPSILON = 1e-9
"""Hours; a span or a wait this short is the rounding of a sum."""


def ecovisor(ask: Ask, length: float) -> Spans:
    """Run while the intensity is under a threshold fixed at the arrival, and on once the wait is used up."""
    threshold = _quantile_of_day(ask.arrival, ask.intensity)
    return _hour_by_hour(ask, length, lambda now, _ran, _left: bool(ask.intensity[int(now)] < threshold))


def wait_awhile(ask: Ask, length: float) -> Spans:
    """Run in the cleanest hours before arrival + limit + length. It alone knows the length: a bound."""
    ends = ask.arrival + ask.max_wait + length
    return _cleanest(ask.arrival, ends, length, ask.intensity, price=0.0)


def perak(ask: Ask, length: float) -> Spans:
    """Run this hour if it is among the cleanest that the job is expected to need, waiting at its price.

    What is expected is asked anew each hour: the mean remaining length of the queue's jobs that ran as long.
    """

    def runs(now: float, ran: float, wait_left: float) -> bool:
        needs = ask.lengths.remaining_after(ran)
        ends = min(now + wait_left + needs, float(ask.intensity.size))
        price = ask.wait_price / ask.cpus
        plan = _cleanest(now, ends, min(needs, ends - now), ask.intensity, price=price)
        return plan[0][0] <= now + _EPSILON

    return _hour_by_hour(ask, length, runs)


PausePolicy = Callable[[Ask, float], Spans]
"""Its second argument, the length, is when the job ends; only `wait_awhile` plans with it."""

PAUSE_POLICIES: dict[str, PausePolicy] = {"ecovisor": ecovisor, "wait-awhile": wait_awhile, "perak": perak}


def _hour_by_hour(ask: Ask, length: float, runs: Callable[[float, float, float], bool]) -> Spans:
    """Ask `runs(now, hours run, wait left)` at the arrival and each full hour, until the job is done."""
    now, ran, wait_left = ask.arrival, 0.0, ask.max_wait
    spans: list[tuple[float, float]] = []
    while length - ran > _EPSILON:
        to_hour = math.floor(now + _EPSILON) + 1 - now
        if wait_left > _EPSILON and not runs(now, ran, wait_left):
            step = min(to_hour, wait_left)
            wait_left -= step
        else:
            step = min(to_hour, length - ran) if wait_left > _EPSILON else length - ran
            ran += step
            _add(spans, now, now + step)
        now += step
    return tuple(spans)


def _cleanest(start: float, end: float, needs: float, intensity: Floats, *, price: float) -> Spans:
    """The hours of least intensity + `price` x hours from the start, `needs` together; early ones first."""
    hours = np.arange(int(start), math.ceil(end - _EPSILON))
    cost = intensity[hours] + price * (hours - hours[0])
    chosen: list[int] = []
    left = needs
    for index in np.argsort(cost, kind="stable"):
        if left <= _EPSILON:
            break
        hour = float(hours[index])
        left -= min(hour + 1, end) - max(hour, start)
        chosen.append(int(hours[index]))
    spans: list[tuple[float, float]] = []
    # What is more than needed is cut from the last that was chosen, the dirtiest.
    surplus, dirtiest = max(0.0, -left), chosen[-1]
    for hour in sorted(chosen):
        _add(spans, max(float(hour), start), min(hour + 1.0, end) - (surplus if hour == dirtiest else 0.0))
    return tuple(spans)


def _add(spans: list[tuple[float, float]], start: float, end: float) -> None:
    if spans and start - spans[-1][1] <= _EPSILON:
        spans[-1] = (spans[-1][0], end)
    else:
        spans.append((start, end))


def _quantile_of_day(start: float, intensity: Floats) -> float:
    """The intensity under which the share `ECOVISOR_SHARE` of the next 24 h lies, by time."""
    first = int(start)
    hours = intensity[first : first + ECOVISOR_HOURS + 1]
    weights = np.ones(hours.size)
    weights[0] = first + 1 - start
    weights[ECOVISOR_HOURS:] = start - first
    order = np.argsort(hours, kind="stable")
    passed = np.cumsum(weights[order])
    return float(hours[order][np.searchsorted(passed, ECOVISOR_SHARE * passed[-1], side="right")])
