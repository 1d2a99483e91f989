"""How far forecasts are off, by zone, beside the plainest models; and what starts chosen by them save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from perak.domain.carbon import forecast
from perak.domain.carbon.deferral import LENGTHS_HOURS, saved_by_forecast
from perak.domain.carbon.shifting import Floats
from perak.domain.errors import InvalidInput
from perak.sim.traces import IntensityTrace

FIRST_ORIGIN = forecast.WEEK
"""The first hour for which each of the models has enough of a past."""
DAY_AHEAD = forecast.DAY

Forecasts = Iterable[tuple[int, Floats]]
"""Zones by column, each with a row of hours ahead for every hour from `FIRST_ORIGIN` on."""

Model = Callable[[Floats, forecast.Rows], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneError:
    """Mean absolute error of the next 24 hours, in g/kWh, over all hours from the second week on."""

    zone: str
    mean_intensity: float
    ours: float
    seasonal_naive: float
    persistence: float
    decaying_profile: float


def errors_by_zone(trace: IntensityTrace, zones: Sequence[str]) -> Iterator[ZoneError]:
    """The errors of each of `zones`; all zones of the trace are learnt from. Raises InvalidInput."""
    hours = trace.grams_per_kwh.shape[0]
    if hours < FIRST_ORIGIN + DAY_AHEAD:
        needed = FIRST_ORIGIN + DAY_AHEAD
        raise InvalidInput(f"The intensity has {hours} hours. A forecast and its check need {needed}.")
    columns = [trace.zones.index(zone) for zone in zones]
    for column, ours in forecast.backtest(trace.grams_per_kwh, zones=columns):
        series = trace.grams_per_kwh[:, column]
        yield ZoneError(
            zone=trace.zones[column],
            mean_intensity=float(series.mean()),
            ours=_error(series, ours),
            seasonal_naive=_error(series, _said(forecast.seasonal_naive, series)),
            persistence=_error(series, _said(forecast.persistence, series)),
            decaying_profile=_error(series, _said(forecast.decaying_profile, series)),
        )


def by_model(intensity: Floats, model: Model, zones: Sequence[int]) -> Forecasts:
    """What a model that learns nothing says of each zone."""
    return ((zone, _said(model, intensity[:, zone])) for zone in zones)


def captured(intensity: Floats, forecasts: Forecasts) -> dict[int, tuple[float, float]]:
    """By job length in hours: mean saving of the zones in g/kWh, by forecast and by perfect knowledge."""
    sums = dict.fromkeys(LENGTHS_HOURS, (0.0, 0.0))
    zones = 0
    for zone, said in forecasts:
        zones += 1
        for length in LENGTHS_HOURS:
            found = saved_by_forecast(intensity[:, zone], said, first=FIRST_ORIGIN, length=length)
            sums[length] = (sums[length][0] + found[0], sums[length][1] + found[1])
    return {length: (ours / zones, perfect / zones) for length, (ours, perfect) in sums.items()}


def _said(model: Model, series: Floats) -> Floats:
    return model(series, np.arange(FIRST_ORIGIN, series.size))


def _error(series: Floats, said: Floats) -> float:
    actual = sliding_window_view(series[FIRST_ORIGIN:], DAY_AHEAD)
    return float(np.abs(said[: actual.shape[0], :DAY_AHEAD] - actual).mean())
