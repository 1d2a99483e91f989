"""The carbon of running a job at a place from a moment on: what the market weighs, and what receipts count.

`Grid` is a picture of all zones at one moment, made by the exchange from its feeds; everything here is a
function of it. Two figures are kept apart: `grams` of the run by the intensity of the claimed region, which
is reported, and `counted_grams`, which is what a preference for clean power sees: never less than the
evidence allows, and with what is emitted where data is moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perak.domain.carbon.intensity import Intensity, yearly_intensity
from perak.domain.carbon.signal import SECONDS_PER_HOUR, AverageHours, parts_by_hour
from perak.domain.facts.power import PUE_UNKNOWN
from perak.domain.footprint import JOULES_PER_KWH, moving_grams
from perak.domain.regions import normal_region
from perak.domain.whereabouts import CLAIMED, Whereabouts, grams_at_least

STEP_SECONDS = 900
"""Starts are tried four times an hour, like in the simulator's policy."""

WORST_OF_HOURS = 7 * 24
"""A grid's worst hour comes about once a week; a worse one than in the last is not foreseen."""

MEASURED, FORECAST, YEARLY = "measured", "forecast", "yearly average"
"""What an hour's intensity is, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneOutlook:
    """What is known of a zone's average intensity: hours that were, hours to come, and else the year's mean.

    `note` says why a feed's figures are missing or old; empty: nothing is wrong.
    """

    yearly: Intensity
    measured: AverageHours | None = None
    forecast: AverageHours | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for series in (self.measured, self.forecast):
            if not isinstance(series, AverageHours | None):
                raise TypeError("a zone's average intensity was given marginal figures")

    def at(self, hour: int) -> tuple[float, str]:
        """(g/kWh, which of MEASURED, FORECAST and YEARLY it is)."""
        for series, kind in ((self.measured, MEASURED), (self.forecast, FORECAST)):
            grams = None if series is None else series.at(hour)
            if grams is not None:
                return grams, kind
        return self.yearly.grams_per_kwh, YEARLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean intensity of an interval, weighted by time; `shares` of it by kind of figure, summing to 1."""

    grams_per_kwh: float
    shares: Mapping[str, float]
    outlook: ZoneOutlook

    @property
    def label(self) -> str:
        """``measured``, or ``0.75 measured, 0.25 yearly average``."""
        kinds = [kind for kind in (MEASURED, FORECAST, YEARLY) if self.shares.get(kind)]
        if len(kinds) == 1:
            return kinds[0]
        return ", ".join(f"{self.shares[kind]:.2f} {kind}" for kind in kinds)

    @property
    def source(self) -> str:
        """Whose figures they are, of all kinds that were used."""
        series = {MEASURED: self.outlook.measured, FORECAST: self.outlook.forecast}
        named = [each.source for kind, each in series.items() if each is not None and self.shares.get(kind)]
        if self.shares.get(YEARLY):
            yearly = self.outlook.yearly
            named.append(f"{yearly.source} ({yearly.region} {yearly.year})")
        return "; ".join(dict.fromkeys(named))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCarbon:
    """A run's operational CO2e in grams, as claimed and as a preference counts it, and what it rests on.

    `moved_grams`: of bringing its data there, low and high, by the claimed region. `grams` has none of it,
    `counted_grams` has `counted_moved_grams`: the low figure, as a preference counts it.
    """

    grams: float
    counted_grams: float
    mean: Mean
    evidence: str
    moved_grams: tuple[float, float] = (0.0, 0.0)
    counted_moved_grams: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOption:
    """A start, in seconds from now, and the CO2e of the run from then."""

    wait_seconds: int
    carbon: PlacementCarbon


@dataclass(frozen=True, slots=True)
class Grid:
    """All zones that have a feed, by region; the others have their year's mean."""

    zones: Mapping[str, ZoneOutlook] = field(default_factory=dict)

    def zone(self, region: str) -> ZoneOutlook:
        """The outlook of the smallest known zone around `region`: ``US-CA``, else ``US``, else the year's."""
        name = normal_region(region)
        while name:
            if name in self.zones:
                return self.zones[name]
            name = name.rpartition("-")[0]
        return ZoneOutlook(yearly=yearly_intensity(region))

    def mean(self, region: str, *, start: float, seconds: float, least: float = 0.0) -> Mean:
        """The mean from Unix time `start` on; each hour counts with `least` g/kWh or more."""
        outlook = self.zone(region)
        total, shares = 0.0, dict.fromkeys((MEASURED, FORECAST, YEARLY), 0.0)
        for hour, part in parts_by_hour(start, max(1.0, seconds)):
            grams, kind = outlook.at(hour)
            total += max(grams, least) * part
            shares[kind] += part
        whole = sum(shares.values())
        return Mean(
            grams_per_kwh=total / whole,
            shares={kind: part / whole for kind, part in shares.items()},
            outlook=outlook,
        )

    def carbon(
        self,
        *,
        region: str,
        watts: float,
        seconds: float,
        start: float,
        where: Whereabouts = CLAIMED,
        transfer_bytes: int = 0,
        pue: float = PUE_UNKNOWN,
    ) -> PlacementCarbon:
        """CO2e of drawing `watts` for `seconds` from Unix time `start` on in `region`.

        `transfer_bytes`: what has to be brought there first, counted as if the network drew its power there.
        """
        mean = self.mean(region, start=start, seconds=seconds)
        least = grams_at_least(region, where)
        counted = mean if least <= 0 else self.mean(region, start=start, seconds=seconds, least=least)
        kwh = watts * seconds / JOULES_PER_KWH * pue
        low, _ = moving_grams(transfer_bytes, grams_per_kwh=counted.grams_per_kwh)
        return PlacementCarbon(
            grams=kwh * mean.grams_per_kwh,
            counted_grams=kwh * counted.grams_per_kwh + low,
            mean=mean,
            evidence=where.evidence,
            moved_grams=moving_grams(transfer_bytes, grams_per_kwh=mean.grams_per_kwh),
            counted_moved_grams=low,
        )

    def starts(
        self,
        *,
        region: str,
        watts: float,
        seconds: float,
        now: float,
        latest_wait_seconds: int,
        where: Whereabouts = CLAIMED,
        transfer_bytes: int = 0,
        step_seconds: int = STEP_SECONDS,
    ) -> tuple[StartOption, ...]:
        """The run at each start that may be waited for, now first; the market weighs them against delay."""
        waits = range(0, max(0, latest_wait_seconds) + 1, step_seconds)
        return tuple(
            StartOption(
                wait_seconds=wait,
                carbon=self.carbon(
                    region=region,
                    watts=watts,
                    seconds=seconds,
                    start=now + wait,
                    where=where,
                    transfer_bytes=transfer_bytes,
                ),
            )
            for wait in waits
        )

    def worst(self, region: str, *, now: float) -> float:
        """g/kWh that no hour from Unix time `now` on is expected to pass: the dirtiest hour of the last week
        and of the forecast, or the year's mean."""
        outlook = self.zone(region)
        this_hour = int(now // SECONDS_PER_HOUR)
        ahead = this_hour if outlook.forecast is None else outlook.forecast.end_hour
        hours = range(this_hour - WORST_OF_HOURS, max(ahead, this_hour) + 1)
        return max(outlook.yearly.grams_per_kwh, *(outlook.at(hour)[0] for hour in hours))

    def hourly(self, region: str, *, start: float, hours: int) -> tuple[tuple[int, float, str], ...]:
        """(hour, g/kWh, kind) of each of the `hours` from Unix time `start` on, for showing."""
        outlook = self.zone(region)
        first = int(start // SECONDS_PER_HOUR)
        return tuple((hour, *outlook.at(hour)) for hour in range(first, first + hours))


YEARLY_GRID = Grid()
"""No feed: every zone has its year's mean."""
