"""When a node's temperatures are worth a report: as a part turns hot or cool, and now and then."""

from __future__ import annotations

from collections.abc import Sequence

from perak.domain.hardware.heat import hot_now
from perak.domain.report import Health, Sensor


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
