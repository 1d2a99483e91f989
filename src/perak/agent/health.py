"""What of a node's health is worth a report: a part that turns hot or cool, or an error of a card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from perak.domain.hardware.fault import is_minor
from perak.domain.hardware.heat import hot_now
from perak.domain.report import Faulted, Health, Sensor

FAULT_AGAIN_SECONDS = 3_600.0
"""The same fault of a card is reported once in this time: one that fails repeats it."""


class FaultWatch:
    """Which errors of devices are worth a report: those that no program makes, once in a while."""

    def __init__(self) -> None:
        self._told_at: dict[Faulted, float] = {}

    def take(self, faults: Iterable[Faulted], *, now: float) -> list[Faulted]:
        """Those that are worth a report; `now` in seconds on any steady clock."""
        found = []
        for fault in faults:
            if is_minor(fault) or now - self._told_at.get(fault, -math.inf) < FAULT_AGAIN_SECONDS:
                continue
            self._told_at[fault] = now
            found.append(fault)
        return found


class HealthWatch:
    """Looks at readings in their order. `every_seconds`, and more often while a part is hot."""

    def __init__(self, *, every_seconds: float, every_seconds_hot: float) -> None:
        self._every_seconds = every_seconds
        self._every_seconds_hot = every_seconds_hot
        self._hot: tuple[str, ...] = ()
        self._reported_at: float | None = None
        self._told_turn = False

    def take(self, sensors: Sequence[Sensor], *, now: float) -> Health | None:
        """The report that this reading is worth; `now` in seconds on any steady clock.

        A machine without a sensor says nothing; one that lost its last says so. A turn is told again after a
        while: the exchange passes over what turns too quickly.
        """
        hot = hot_now(sensors, hot_before=self._hot)
        turned, self._hot = hot != self._hot, hot
        if self._reported_at is None:
            due = bool(sensors)
        else:
            every = self._every_seconds_hot if hot or self._told_turn else self._every_seconds
            due = turned or now - self._reported_at >= every
        if not due:
            return None
        self._reported_at, self._told_turn = now, turned
        return Health(sensors=tuple(sensors))
