"""European zones: generation by type from ENTSO-E's transparency platform, by entsoe-py; needs a token.

The mix of what a zone generates, imports left out. The library is loaded when it is read, in a thread.
Source: docs of entsoe-py 0.8, `EntsoePandasClient.query_generation`. Not tried live.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from perak.adapters.feeds.http import TIMEOUT_SECONDS, FeedError, time_of
from perak.adapters.feeds.mix import hours_of_mix
from perak.domain.carbon.signal import AverageHours, GridReading

SOURCE = "ENTSO-E transparency platform"
PAST_DAYS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EntsoeFeed:
    """Zones are the library's areas, like DE_LU."""

    token: str = field(repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS
    name: str = "entsoe"
    tried_live: bool = False

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """Raises FeedError."""
        return GridReading(measured=await asyncio.to_thread(self._read, zone, now))

    def _read(self, zone: str, now: datetime) -> AverageHours:
        try:
            import pandas
            from entsoe import EntsoePandasClient
        except ModuleNotFoundError as error:
            raise FeedError(f"{error.name} is not installed: pip install 'perak[feeds]'") from None
        try:
            client = EntsoePandasClient(api_key=self.token, timeout=int(self.timeout_seconds), retry_count=1)
            frame = client.query_generation(
                zone,
                start=pandas.Timestamp(now - timedelta(days=PAST_DAYS)),
                end=pandas.Timestamp(now),
                psr_type=None,
            )
        except Exception as error:  # the library raises its own, requests' and pandas' errors
            raise FeedError(f"it gave nothing: {type(error).__name__}") from None
        return parse(frame, zone=zone)


def parse(frame: Any, *, zone: str) -> AverageHours:
    """Hours of the library's table: a row a time; a column a type, or a type and what it consumes."""
    rows = []
    for at, row in frame.iterrows():
        mix: dict[str, float | None] = {}
        for column, value in row.items():
            name, kind = column if isinstance(column, tuple) else (column, "Actual Aggregated")
            if kind == "Actual Aggregated" and value == value:  # NaN is what was not told.
                mix[str(name)] = float(value)
        rows.append((time_of(at.isoformat()), mix))
    return hours_of_mix(rows, zone=zone, source=SOURCE)
