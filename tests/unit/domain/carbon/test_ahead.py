"""The exchange's own forecast: the simulator's model in plain Python, and better than the last hour."""

import csv
import gzip

import numpy as np
import pytest
from benchmarks.data import INTENSITY_2022, missing

from perak.domain.carbon import forecast
from perak.domain.carbon.ahead import GAP_HOURS_MAX, HORIZON_HOURS, own_forecast
from perak.domain.carbon.signal import AverageHours

FIRST = 24 * 20_000
"""A midnight."""


def known(values: list[float], *, first: int = FIRST) -> AverageHours:
    return AverageHours(zone="DE", first_hour=first, grams_per_kwh=tuple(values), source="a feed")


def test_a_grid_that_repeats_each_day_is_foreseen() -> None:
    day = [100.0 + 10 * hour for hour in range(24)]
    now = FIRST + 7 * 24
    found = own_forecast(known(day * 7), now_hour=now)
    assert found is not None
    assert (found.first_hour, found.end_hour) == (now, now + HORIZON_HOURS)
    assert [found.at(now + hour) for hour in range(24)] == pytest.approx(day)
    assert found.source == "Perak's forecast from a feed"


def test_less_than_a_day_and_old_figures_foretell_nothing() -> None:
    assert own_forecast(known([100.0] * 23), now_hour=FIRST + 23) is None
    late = FIRST + 24 + GAP_HOURS_MAX + 1
    assert own_forecast(known([100.0] * 24), now_hour=late) is None


def test_no_later_hour_is_used() -> None:
    values = [float(100 + hour % 24) for hour in range(24 * 9)]
    now = FIRST + 24 * 8 - 1
    seen = own_forecast(known(values[: 24 * 8]), now_hour=now)
    assert own_forecast(known(values), now_hour=now) == seen


def test_it_is_the_simulators_model() -> None:
    rng = np.random.default_rng(7)
    series = 300 + 80 * np.sin(np.arange(24 * 9) / 24 * 2 * np.pi) + rng.normal(0, 20, 24 * 9)
    origin = 24 * 8 + 5
    theirs = forecast.decaying_profile(series, np.array([origin]))[0]
    ours = own_forecast(known([float(v) for v in series[:origin]]), now_hour=FIRST + origin)
    assert ours is not None
    assert list(ours.grams_per_kwh) == pytest.approx(list(theirs))


def test_it_beats_the_last_hour_going_on_in_2022() -> None:
    """Mean absolute error of the next day, in some zones and every 71st hour; all are in the docs."""
    if reason := missing(INTENSITY_2022):
        pytest.skip(reason)
    with gzip.open(INTENSITY_2022, "rt") as stream:
        rows = list(csv.reader(stream))
    zones = range(5, len(rows[0]), 30)
    errors = {"ours": 0.0, "persistence": 0.0}
    for zone in zones:
        series = [float(row[zone]) for row in rows[1:]]
        for origin in range(24 * 8, len(series) - 24, 71):
            past = known(series[origin - 24 * 7 : origin], first=FIRST + origin)
            found = own_forecast(past, now_hour=FIRST + origin + 24 * 7)
            assert found is not None
            actual = series[origin : origin + 24]
            ours = found.grams_per_kwh[:24]
            errors["ours"] += sum(abs(a - (f or 0)) for a, f in zip(actual, ours, strict=True))
            errors["persistence"] += sum(abs(a - series[origin - 1]) for a in actual)
    assert errors["ours"] < 0.8 * errors["persistence"]
