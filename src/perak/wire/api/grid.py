"""The grid's carbon by zone and hour, and a month of a project's own."""

from __future__ import annotations

from datetime import datetime

from perak.wire.api.base import Model


class GridHour(Model):
    """The average intensity of an hour; `kind`: measured, forecast or yearly average."""

    at: datetime
    grams_per_kwh: float
    kind: str


class MarginalHour(Model):
    """What one more kilowatt-hour would cause in an hour; never counted on a receipt."""

    at: datetime
    grams_per_kwh: float


class GridZone(Model):
    """A zone by its feed. `feed` None: none is set, and the year's average counts.

    `hours`: a day back and as far ahead as is known. `tried_live`: whether anybody has seen the feed work.
    """

    region: str
    feed: str | None
    feed_zone: str | None
    tried_live: bool | None
    now: GridHour
    source: str
    forecast_source: str | None
    factor: str | None
    note: str | None
    read_at: datetime | None
    yearly_grams_per_kwh: float
    yearly_source: str
    hours: list[GridHour] = []
    marginal: list[MarginalHour] = []
    marginal_source: str | None = None


class GridZones(Model):
    """The zones that have a feed, without their hours."""

    zones: list[GridZone]


class CarbonRow(Model):
    """Runs of a month with the same region, evidence and method, as a company's report wants them.

    Operational CO2e is location-based (GHG Protocol, scope 2 guidance, for the provider; scope 3, category 1,
    for who rents). Embodied carbon is a range; avoided carbon is outside of every total.
    """

    month: str
    scope: str
    category: str
    region: str
    region_evidence: str
    method: str
    runs: int
    energy_kwh: float
    energy_uncertainty_percent: float
    grams_per_kwh: float
    location_based_kg: float
    market_based_kg: None = None
    """Not reported: no contract of the provider's for electricity is known."""
    embodied_low_kg: float
    embodied_high_kg: float
    runs_without_embodied: int
    avoided_low_kg: float
    avoided_high_kg: float
    moved_low_kg: float = 0.0
    """Of moving the runs' data over the network; in no other column, and in no total of these."""
    moved_high_kg: float = 0.0
    sources: str


class CarbonReport(Model):
    """A month (UTC, by the day a receipt was issued) of a project's receipts."""

    project: str
    month: str
    rows: list[CarbonRow]
    runs: int
    energy_kwh: float
    location_based_kg: float
    embodied_low_kg: float
    embodied_high_kg: float
    avoided_low_kg: float
    avoided_high_kg: float
    moved_low_kg: float = 0.0
    moved_high_kg: float = 0.0
