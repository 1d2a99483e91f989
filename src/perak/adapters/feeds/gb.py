"""Great Britain: the Carbon Intensity API of the National Energy System Operator; no key is needed.

Half-hours with `forecast` and, once they are past, `actual`, of national demand; direct emissions. Its
forecast reaches two days. Source: carbon-intensity.github.io/api-definitions. Not tried live.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perak.adapters.feeds.http import TIMEOUT_SECONDS, FeedError, by_hour, get_json, number, time_of
from perak.domain.carbon.signal import AverageHours, GridReading

URL = "https://api.carbonintensity.org.uk"
SOURCE = "GB Carbon Intensity API (NESO, CC BY 4.0)"
PAST_DAYS = 8
"""Enough for a profile of a week; the API gives at most fourteen days at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GbFeed:
    """One zone: GB."""

    url: str = URL
    timeout_seconds: float = TIMEOUT_SECONDS
    name: str = "gb"
    tried_live: bool = False

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """Measured hours of the last days, and the API's own forecast. Raises FeedError."""
        since = now - timedelta(days=PAST_DAYS)
        past = f"{self.url}/intensity/{since:%Y-%m-%dT%H:%MZ}/{now:%Y-%m-%dT%H:%MZ}"
        ahead = f"{self.url}/intensity/{now:%Y-%m-%dT%H:%MZ}/fw48h"
        return GridReading(
            measured=parse(
                await get_json(past, timeout_seconds=self.timeout_seconds), zone=zone, kind="actual"
            ),
            forecast=parse(
                await get_json(ahead, timeout_seconds=self.timeout_seconds), zone=zone, kind="forecast"
            ),
        )


def parse(reply: Any, *, zone: str, kind: str) -> AverageHours:
    """The hours of a reply; `kind`: actual or forecast. Raises FeedError."""
    try:
        points = [(time_of(each["from"]), number(each["intensity"][kind])) for each in reply["data"]]
    except (KeyError, TypeError, IndexError):
        raise FeedError("its answer is not as documented") from None
    first, values = by_hour(points)
    return AverageHours(zone=zone, first_hour=first, grams_per_kwh=values, source=SOURCE, factor="direct")
