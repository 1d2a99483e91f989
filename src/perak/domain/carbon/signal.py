"""What a grid says of itself, hour by hour: average and marginal intensity, which are never mixed.

The average says what the electricity that is used carries, and is what receipts count (location-based). The
marginal says what one more kilowatt-hour would cause. They are types apart without a common parent, so that
no function takes one for the other. Hours are whole hours since 1970 (UTC); intensities are g CO2e/kWh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perak.domain.errors import InvalidInput

SECONDS_PER_HOUR = 3600
GRAMS_PER_KWH_MAX = 3000.0
"""Lignite in the oldest plants comes to 1,500; what is above this is another unit."""
HOURS_MAX = 24 * 366 * 3
"""Of one series: three years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageHours:
    """Average intensities of a zone from `first_hour` on; None: the source has no figure for that hour.

    `source` names who says so, `factor` what is counted (``life cycle`` or ``direct``).
    """

    zone: str
    first_hour: int
    grams_per_kwh: tuple[float | None, ...]
    source: str
    factor: str = "life cycle"

    def __post_init__(self) -> None:
        _check(self.grams_per_kwh, self.source)

    @property
    def end_hour(self) -> int:
        """The first hour after the last."""
        return self.first_hour + len(self.grams_per_kwh)

    def at(self, hour: int) -> float | None:
        """The intensity in that hour; None where it is not known."""
        index = hour - self.first_hour
        return self.grams_per_kwh[index] if 0 <= index < len(self.grams_per_kwh) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginalHours:
    """Marginal intensities of a zone from `first_hour` on; shown, and never counted on a receipt."""

    zone: str
    first_hour: int
    grams_per_kwh: tuple[float | None, ...]
    source: str

    def __post_init__(self) -> None:
        _check(self.grams_per_kwh, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridReading:
    """What a feed said of a zone: hours that were, hours to come, the marginal signal; each if it has it."""

    measured: AverageHours | None = None
    forecast: AverageHours | None = None
    marginal: MarginalHours | None = None


def hour_of(at_seconds: float) -> int:
    """The hour that a Unix time lies in."""
    return math.floor(at_seconds / SECONDS_PER_HOUR)


def parts_by_hour(start_seconds: float, seconds: float) -> Iterator[tuple[int, float]]:
    """(hour, seconds of it) of an interval; they sum to its length."""
    end = start_seconds + seconds
    at = start_seconds
    while at < end:
        hour = hour_of(at)
        until = min(end, float((hour + 1) * SECONDS_PER_HOUR))
        yield hour, until - at
        at = until


def joined(older: AverageHours | None, newer: AverageHours) -> AverageHours:
    """Both as one series of `newer`'s source; where both know an hour, the newer is right."""
    if older is None or older.zone != newer.zone:
        return newer
    first = min(older.first_hour, newer.first_hour)
    end = max(older.end_hour, newer.end_hour)
    first = max(first, end - HOURS_MAX)
    values = tuple(
        newer.at(hour) if newer.at(hour) is not None else older.at(hour) for hour in range(first, end)
    )
    return AverageHours(
        zone=newer.zone, first_hour=first, grams_per_kwh=values, source=newer.source, factor=newer.factor
    )


def _check(values: tuple[float | None, ...], source: str) -> None:
    if len(values) > HOURS_MAX:
        raise InvalidInput(f"{source} gives {len(values)} hours; at most {HOURS_MAX} are taken at once")
    for value in values:
        if value is not None and not 0 <= value <= GRAMS_PER_KWH_MAX:
            raise InvalidInput(
                f"{source} gives {value:g} g/kWh, which no grid emits. Is it in another unit, like lb/MWh?"
            )


if TYPE_CHECKING:
    # The type checker complains of an ignore that is not needed: so this fails once the two could be mixed.
    def _apart(average: AverageHours, marginal: MarginalHours) -> tuple[MarginalHours, AverageHours]:
        return average, marginal  # type: ignore[return-value]
