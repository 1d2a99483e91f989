"""WattTime, with an account: the marginal signal (MOER). It is shown and never counted on a receipt.

Source: docs of its API v3: /login gives a token for half an hour by user and password, /v3/forecast points of
five minutes in pounds of CO2 per MWh. Not tried live.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perak.adapters.feeds.http import TIMEOUT_SECONDS, FeedError, by_hour, get_json, number, time_of
from perak.domain.carbon.signal import GridReading, MarginalHours

URL = "https://api.watttime.org"
SOURCE = "WattTime MOER"
GRAMS_PER_KWH = 453.59237 / 1000
"""Of a pound per MWh."""
UNITS = "lbs_co2_per_mwh"


@dataclass(frozen=True, slots=True, kw_only=True)
class WattTimeFeed:
    """Zones are WattTime's regions, like CAISO_NORTH."""

    user: str
    password: str = field(repr=False)
    url: str = URL
    timeout_seconds: float = TIMEOUT_SECONDS
    name: str = "watttime"
    tried_live: bool = False

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """Raises FeedError."""
        login = await get_json(
            f"{self.url}/login", auth=(self.user, self.password), timeout_seconds=self.timeout_seconds
        )
        token = login.get("token") if isinstance(login, dict) else None
        if not isinstance(token, str):
            raise FeedError("its answer to the login holds no token")
        reply = await get_json(
            f"{self.url}/v3/forecast",
            params={"region": zone, "signal_type": "co2_moer"},
            headers={"Authorization": f"Bearer {token}"},
            timeout_seconds=self.timeout_seconds,
        )
        return GridReading(marginal=parse(reply, zone=zone))


def parse(reply: Any, *, zone: str) -> MarginalHours:
    """The hours of a forecast. Raises FeedError for another signal or unit."""
    try:
        meta = reply["meta"]
        if meta["units"] != UNITS or meta["signal_type"] != "co2_moer":
            raise FeedError(f"it gives {str(meta['units'])[:40]} of {str(meta['signal_type'])[:40]}")
        points = [(time_of(each["point_time"]), number(each["value"])) for each in reply["data"]]
    except (KeyError, TypeError):
        raise FeedError("its answer is not as documented") from None
    first, pounds = by_hour(points)
    grams = tuple(None if value is None else value * GRAMS_PER_KWH for value in pounds)
    return MarginalHours(zone=zone, first_hour=first, grams_per_kwh=grams, source=SOURCE)
