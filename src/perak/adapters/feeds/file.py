"""A file of hourly values: CSV (gzipped or not) or Parquet; a time in the first column, then one a zone."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from perak.adapters.feeds.http import FeedError, by_hour, time_of
from perak.domain.carbon.signal import AverageHours, GridReading, hour_of

FILE_BYTES_MAX = 256 * 2**20
PAST_DAYS = 8
AHEAD_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFeed:
    """`zone` names the column. Hours after now are the operator's own forecast."""

    path: Path
    source: str = ""
    factor: str = "life cycle"
    name: str = "file"
    tried_live: bool = True

    async def read(self, zone: str, *, now: datetime) -> GridReading:
        """The last days and the next, read in a thread. Raises FeedError."""
        return await asyncio.to_thread(self.read_now, zone, now=now)

    def read_now(self, zone: str, *, now: datetime) -> GridReading:
        """The same at once."""
        since, until = now - timedelta(days=PAST_DAYS), now + timedelta(days=AHEAD_DAYS)
        near = [(at, value) for at, value in self._points(zone) if since <= at <= until]
        this_hour = hour_of(now.timestamp())
        past = [point for point in near if hour_of(point[0].timestamp()) <= this_hour]
        ahead = [point for point in near if hour_of(point[0].timestamp()) > this_hour]
        if not near:
            raise FeedError(f"{self.path.name} has no hour of {zone} near {now:%Y-%m-%d %H:%M} UTC")
        return GridReading(
            measured=self._hours(zone, past) if past else None,
            forecast=self._hours(zone, ahead) if ahead else None,
        )

    def _hours(self, zone: str, points: Iterable[tuple[datetime, float | None]]) -> AverageHours:
        first, values = by_hour(points)
        source = self.source or f"the operator's file {self.path.name}"
        return AverageHours(
            zone=zone, first_hour=first, grams_per_kwh=values, source=source, factor=self.factor
        )

    def _points(self, zone: str) -> Iterator[tuple[datetime, float | None]]:
        try:
            if self.path.stat().st_size > FILE_BYTES_MAX:
                raise FeedError(f"{self.path.name} is larger than {FILE_BYTES_MAX:,} bytes")
            yield from (_parquet if self.path.suffix == ".parquet" else _csv)(self.path, zone)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FeedError(f"{self.path.name} can't be read: {error}") from None


def _csv(path: Path, zone: str) -> Iterator[tuple[datetime, float | None]]:
    with path.open("rb") as raw, _text(raw, packed=path.suffix == ".gz") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        if zone not in header[1:]:
            raise FeedError(f"{path.name} has no column {zone!r}")
        column = header.index(zone)
        for row in rows:
            text = row[column].strip() if len(row) > column else ""
            try:
                yield time_of(row[0]), float(text) if text else None
            except ValueError:
                raise FeedError(f"{path.name}, line {rows.line_num}: {text[:40]!r} is no number") from None


def _text(raw: BinaryIO, *, packed: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="utf-8", newline="")


def _parquet(path: Path, zone: str) -> Iterator[tuple[datetime, float | None]]:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise FeedError("Parquet needs pyarrow: pip install 'perak[feeds]', or give a CSV file") from None
    table = parquet.read_table(path)
    names = table.column_names
    if zone not in names[1:]:
        raise FeedError(f"{path.name} has no column {zone!r}")
    for at, value in zip(table[names[0]].to_pylist(), table[zone].to_pylist(), strict=True):
        yield time_of(at), None if value is None else float(value)
