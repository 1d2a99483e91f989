"""Reading traces: jobs (arrival, length, CPUs) and intensities (a column of g/kWh by zone, hourly)."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perak.domain.carbon.shifting import Floats
from perak.domain.errors import InvalidInput

SECONDS_PER_HOUR = 3600
ZONES_NAMED = 8
"""Of those that a file has, in an error."""
JOB_COLUMNS = ("arrival_s", "length_s", "cpus")
_ALSO_CALLED = {"arrival_time": "arrival_s", "length": "length_s"}
"""As in GAIA's traces, whose times are seconds too."""


@dataclass(frozen=True, slots=True)
class JobTrace:
    """Jobs by row: arrival and length in hours, CPUs as a count."""

    arrivals: Floats
    lengths: Floats
    cpus: Floats


@dataclass(frozen=True, slots=True)
class IntensityTrace:
    """Hourly intensities in g/kWh, a row an hour and a column a zone."""

    zones: tuple[str, ...]
    grams_per_kwh: Floats

    def zone(self, name: str) -> Floats:
        return self.grams_per_kwh[:, self.zones.index(name)]


def read_jobs(path: Path) -> JobTrace:
    """A CSV file with the columns arrival_s, length_s and cpus. Raises InvalidInput with the place."""
    columns = [_ALSO_CALLED.get(name, name) for name in _header(path)]
    missing = [name for name in JOB_COLUMNS if name not in columns]
    if missing:
        raise InvalidInput(
            f"{path}: there is no column {', '.join(missing)}. The first line names {', '.join(JOB_COLUMNS)}."
        )
    arrival, length, cpus = _numbers(path, [columns.index(name) for name in JOB_COLUMNS]).T
    for name, values, fine in (
        ("arrival_s", arrival, arrival >= 0),
        ("length_s", length, length > 0),
        ("cpus", cpus, cpus > 0),
    ):
        if not fine.all():
            row = int(np.argmin(fine))
            raise InvalidInput(
                f"{path}, line {row + 2}: {name} is {values[row]:g}. It must be more than zero."
            )
    return JobTrace(arrival / SECONDS_PER_HOUR, length / SECONDS_PER_HOUR, cpus)


def read_intensity(path: Path, zone: str | None = None) -> IntensityTrace:
    """A CSV file, gzipped or not: times in the first column, a column of each zone; all of them, or one."""
    zones = _header(path)[1:]
    wanted = known_zones(path, zones, [] if zone is None else [zone])
    values = _numbers(path, [zones.index(name) + 1 for name in wanted])
    if (values < 0).any():
        row, column = np.argwhere(values < 0)[0]
        raise InvalidInput(
            f"{path}, line {row + 2}: {wanted[column]} is below zero. Give g/kWh of every hour."
        )
    return IntensityTrace(tuple(wanted), values)


def known_zones(path: Path, zones: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
    """`wanted`, or all where nothing is. Raises InvalidInput for a zone that the file lacks."""
    for zone in wanted:
        if zone not in zones:
            some = ", ".join(zones[:ZONES_NAMED]) + (" …" if len(zones) > ZONES_NAMED else "")
            raise InvalidInput(f"{path}: there is no zone {zone!r}. It has {some}", code="no_such_zone")
    return wanted or zones


def window(series: Floats, *, start: int, hours: int | None) -> Floats:
    """`hours` of a series from `start` on, or all that follow. Raises InvalidInput where it has fewer."""
    end = series.size if hours is None else start + hours
    if not start < end <= series.size:
        raise InvalidInput(
            f"The intensity has {series.size} hours, and hours {start} to {end - 1} were asked for. "
            "Change --start or --hours."
        )
    return series[start:end]


def _header(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InvalidInput(f"{path} can't be read as CSV: {error}.") from None


def _numbers(path: Path, columns: list[int]) -> Floats:
    """Rows below the header; every field must be there and be finite."""
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, usecols=columns, ndmin=2)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path} has something else than numbers: {error}.") from None
    if not values.size:
        raise InvalidInput(f"{path} has no rows below its first line.")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InvalidInput(f"{path}, line {row + 2}: a value is missing or not finite.")
    return values
