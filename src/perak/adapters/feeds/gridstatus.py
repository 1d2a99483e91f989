"""North American grids: the fuel mix of their operators, by the library gridstatus; no key is needed.

The library is loaded when it is read, in a thread. Source: docs of gridstatus, `ISOBase.get_fuel_mix`. Not
tried live.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perak.adapters.feeds.http import FeedError, time_of
from perak.adapters.feeds.mix import hours_of_mix
from perak.domain.carbon.signal import AverageHours, GridReading

OPERATORS = ("CAISO", "Ercot", "ISONE", "MISO", "NYISO", "SPP", "PJM", "IESO")
"""The library's classes."""
_NOT_FUELS = ("time", "interval start", "interval end", "market", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridstatusFeed:
    """Zones are OPERATORS."""

    name: str = "gridstatus"
    tried_live: bool = False

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """Raises FeedError."""
        return GridReading(measured=await asyncio.to_thread(self._read, zone))

    def _read(self, zone: str) -> AverageHours:
        if zone not in OPERATORS:
            raise FeedError(f"{zone[:40]!r} is no grid of gridstatus; they are {', '.join(OPERATORS)}")
        try:
            import gridstatus
        except ModuleNotFoundError as error:
            raise FeedError(f"{error.name} is not installed: pip install 'perak[feeds]'") from None
        try:
            frame = getattr(gridstatus, zone)().get_fuel_mix("today")
        except Exception as error:  # the library raises its own, requests' and pandas' errors
            raise FeedError(f"it gave nothing: {type(error).__name__}") from None
        return parse(frame, zone=zone)


def parse(frame: Any, *, zone: str) -> AverageHours:
    """Hours of the library's table: a row a time in the column Time, the other columns fuels in MW."""
    rows = []
    for _, row in frame.iterrows():
        mix = {
            str(name): float(value)
            for name, value in row.items()
            if str(name).lower() not in _NOT_FUELS and value == value
        }
        rows.append((time_of(row["Time"].isoformat()), mix))
    return hours_of_mix(rows, zone=zone, source=f"{zone}'s fuel mix, by gridstatus")
