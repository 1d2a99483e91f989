"""The grid as an exchange has it: each zone's last reading, what was wrong with the feed, and the outlook.

A feed that fails takes nothing away: the hours that are known stay, the hours ahead are forecast from them,
and what is too old falls back to the year's average, with the reason on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from perak.app.ports import GridFeed
from perak.domain.carbon.ahead import own_forecast
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import Grid, ZoneOutlook
from perak.domain.carbon.signal import AverageHours, GridReading, MarginalHours, hour_of, joined
from perak.domain.errors import DomainError

REFRESH_SECONDS = 900.0
"""Sources publish each half hour or hour; four looks an hour find it soon enough."""
BACKOFF_SECONDS = (60.0, 300.0, 900.0)
"""After failures in a row, unless the source says when to come again."""
STALE_HOURS = 3
"""Sources are an hour or two late; what is later is said on every figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneFeed:
    """Which feed tells of a region, and what the zone is called there."""

    region: str
    feed: GridFeed
    zone: str
    marginal: bool = False
    """Whether the feed tells the marginal signal alone, which is kept apart and counts nowhere."""


@dataclass(slots=True)
class ZoneState:
    """What is known of one region's grid by one feed."""

    of: ZoneFeed
    measured: AverageHours | None = None
    forecast: AverageHours | None = None
    marginal: MarginalHours | None = None
    problem: str = ""
    failures: int = 0
    next_at: datetime | None = None
    read_at: datetime | None = None

    def due(self, now: datetime) -> bool:
        return self.next_at is None or now >= self.next_at

    def took(self, reading: GridReading, *, now: datetime, refresh_seconds: float = REFRESH_SECONDS) -> None:
        """Keep what the feed said; what it says no more of an hour stays."""
        if reading.measured is not None:
            self.measured = joined(self.measured, _named(reading.measured, self.of.region))
        if reading.forecast is not None:
            self.forecast = _named(reading.forecast, self.of.region)
        self.marginal = reading.marginal or self.marginal
        self.problem, self.failures, self.read_at = "", 0, now
        self.next_at = now + timedelta(seconds=refresh_seconds)

    def failed(self, error: Exception, *, now: datetime) -> None:
        """Note why, and when to try again."""
        detail = error.detail if isinstance(error, DomainError) else type(error).__name__
        self.problem = f"{self.of.feed.name}: {detail}"
        wait = (
            getattr(error, "retry_after", None)
            or BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
        )
        self.failures += 1
        self.next_at = now + timedelta(seconds=wait)

    def outlook(self, now: datetime) -> ZoneOutlook:
        """The zone from `now` on: what was measured, the feed's forecast or else ours, and what is wrong."""
        this_hour = hour_of(now.timestamp())
        ahead = self.forecast
        if ahead is None or ahead.end_hour <= this_hour:
            ahead = None if self.measured is None else own_forecast(self.measured, now_hour=this_hour)
        return ZoneOutlook(
            yearly=yearly_intensity(self.of.region),
            measured=self.measured,
            forecast=ahead,
            note=self._note(this_hour),
        )

    def _note(self, this_hour: int) -> str:
        if self.measured is None:
            missing = "no hour is known: the year's average counts" if self.problem else ""
            return "; ".join(filter(None, (self.problem, missing)))
        age = this_hour - self.measured.end_hour + 1
        old = f"figures are {age} hours old" if age > STALE_HOURS else ""
        return "; ".join(filter(None, (self.problem, old)))


@dataclass(slots=True)
class GridBook:
    """All zones that have a feed."""

    states: list[ZoneState] = field(default_factory=list)

    def grid(self, now: datetime) -> Grid:
        """The picture of now, of average intensities alone."""
        return Grid({s.of.region: s.outlook(now) for s in self.states if not s.of.marginal})

    def state(self, region: str, *, marginal: bool = False) -> ZoneState | None:
        found = (s for s in self.states if s.of.region == region and s.of.marginal == marginal)
        return next(found, None)


def _named(series: AverageHours, region: str) -> AverageHours:
    return replace(series, zone=region)
