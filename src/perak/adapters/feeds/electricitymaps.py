"""Electricity Maps, by zone, with a key: the last day, and the forecast where the contract has it.

Source: docs of its API v3, /carbon-intensity/history and /carbon-intensity/forecast. Life-cycle factors,
unless the reply says otherwise. Not tried live.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perak.adapters.feeds.http import TIMEOUT_SECONDS, FeedError, by_hour, get_json, number, time_of
from perak.domain.carbon.signal import AverageHours, GridReading

URL = "https://api.electricitymaps.com/v3"
SOURCE = "Electricity Maps"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricityMapsFeed:
    """`forecast`: whether the contract has forecasts; asked for without, it would be an error each time."""

    token: str = field(repr=False)
    url: str = URL
    forecast: bool = False
    timeout_seconds: float = TIMEOUT_SECONDS
    name: str = "electricitymaps"
    tried_live: bool = False

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """Raises FeedError."""
        measured = parse(await self._get("history", zone), zone=zone, key="history")
        ahead = parse(await self._get("forecast", zone), zone=zone, key="forecast") if self.forecast else None
        return GridReading(measured=measured, forecast=ahead)

    async def _get(self, what: str, zone: str) -> Any:
        return await get_json(
            f"{self.url}/carbon-intensity/{what}",
            params={"zone": zone},
            headers={"auth-token": self.token},
            timeout_seconds=self.timeout_seconds,
        )


def parse(reply: Any, *, zone: str, key: str) -> AverageHours:
    """The hours under `key` of a reply. Raises FeedError."""
    try:
        rows = reply[key]
        points = [(time_of(each["datetime"]), number(each["carbonIntensity"])) for each in rows]
        direct = any(each.get("emissionFactorType") == "direct" for each in rows)
        estimated = any(each.get("isEstimated") for each in rows)
    except (KeyError, TypeError, AttributeError):
        raise FeedError("its answer is not as documented") from None
    first, values = by_hour(points)
    source = f"{SOURCE} (in part estimated)" if estimated else SOURCE
    return AverageHours(
        zone=zone,
        first_hour=first,
        grams_per_kwh=values,
        source=source,
        factor="direct" if direct else "life cycle",
    )
