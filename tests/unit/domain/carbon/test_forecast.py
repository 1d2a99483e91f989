"""The forecast: it learns from the past alone, and what it is for; and savings by deferral."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="the extra `sim` is not installed")

from perak.domain.carbon import forecast  # noqa: E402
from perak.domain.carbon.deferral import mean_savings, saved_by_forecast  # noqa: E402

HOURS = 24 * 42


def grid(seed: int, zones: int = 2) -> np.ndarray:
    """Days with a sun at noon, a weather that lasts, and noise."""
    random = np.random.default_rng(seed)
    hours = np.arange(HOURS)
    weather = np.zeros((HOURS, zones))
    for hour in range(1, HOURS):
        weather[hour] = 0.97 * weather[hour - 1] + random.normal(0, 8, zones)
    sun = 80 * np.maximum(0, np.sin(2 * np.pi * (hours - 6) / 24))
    return np.maximum(0, 300 - sun[:, None] + weather + random.normal(0, 4, (HOURS, zones)))


def test_nothing_of_the_future_is_used() -> None:
    """Else a backtest would flatter: hours after an origin are changed, and its forecast stays."""
    known = grid(1)
    origin = 24 * 35 + 7
    changed = known.copy()
    changed[origin:] = 7.0

    for zone, said in forecast.backtest(known, zones=[0, 1]):
        after = dict(forecast.backtest(changed, zones=[0, 1]))[zone]
        np.testing.assert_array_equal(said[: origin - forecast.WEEK + 1], after[: origin - forecast.WEEK + 1])
        assert not np.array_equal(said, after)


def test_the_backtest_says_what_the_forecast_would_have_said() -> None:
    known = grid(2)
    now = 4 * forecast.WEEK
    ours = forecast.learnt(known[:now])

    for zone, said in forecast.backtest(known, zones=[0, 1]):
        np.testing.assert_allclose(said[now - forecast.WEEK], ours[:, zone])


def test_it_beats_persistence_and_the_day_before() -> None:
    known = grid(3)
    origins = np.arange(forecast.WEEK, HOURS - 24)
    actual = np.lib.stride_tricks.sliding_window_view(known[:, 0], 24)[origins]

    def error(said: np.ndarray) -> float:
        return float(np.abs(said[: origins.size, :24] - actual).mean())

    ours = error(next(forecast.backtest(known, zones=[0]))[1])
    assert ours < error(forecast.persistence(known[:, 0], origins))
    assert ours < error(forecast.seasonal_naive(known[:, 0], origins))


def test_a_zone_that_never_changes_stays_as_it_is() -> None:
    flat = np.full((HOURS, 1), 42.0)

    np.testing.assert_allclose(forecast.learnt(flat), 42.0)


def test_zones_held_out_can_be_forecast_with_what_others_taught() -> None:
    known = grid(4)
    said = dict(forecast.backtest(known, zones=[1], learn_from=[0]))

    assert list(said) == [1]
    assert said[1].shape == (HOURS - forecast.WEEK, forecast.HORIZON_HOURS)
    assert (said[1] >= 0).all()


@given(
    hours=st.lists(st.floats(0, 1000), min_size=12, max_size=40),
    length=st.integers(1, 6),
    slack=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_savings_are_those_of_the_best_start_of_each_hour(
    hours: list[float], length: int, slack: int
) -> None:
    def job(start: int) -> float:
        return sum(hours[start : start + length]) / length

    starts = range(len(hours) - length - slack + 1)
    expected = [job(start) - min(job(start + wait) for wait in range(slack + 1)) for start in starts]

    found = mean_savings(np.array(hours)[:, None], length, slack=slack)
    assert found[0] == pytest.approx(sum(expected) / len(expected), abs=1e-6)


@given(seed=st.integers(0, 1000), length=st.integers(1, 30))
@settings(max_examples=10, deadline=None)
def test_no_forecast_saves_more_than_knowing(seed: int, length: int) -> None:
    series = grid(seed, zones=1)[: 24 * 14, 0]
    origins = np.arange(forecast.WEEK, series.size)
    said = forecast.decaying_profile(series, origins)
    perfect = np.lib.stride_tricks.sliding_window_view(series, 72)[forecast.WEEK :]

    by_forecast, best = saved_by_forecast(series, said, first=forecast.WEEK, length=length)
    assert by_forecast <= best + 1e-9
    by_knowing, best = saved_by_forecast(series, perfect, first=forecast.WEEK, length=length)
    assert by_knowing == pytest.approx(best, abs=1e-9)
