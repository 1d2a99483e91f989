"""Failures: beliefs follow what is seen, worse cards fail sooner, and checkpoints are worth their cost."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.facts.titan import FAILURES_PER_GPU_YEAR
from perak.domain.hardware.hazard import (
    CLASS_PRIOR,
    HOURS_PER_YEAR,
    checkpoint_interval_hours,
    device_failures_per_hour,
    host_departures_per_hour,
    risk,
)


def yearly(**changes: float | None) -> float:
    fields: dict[str, float | None] = {"failures": 0.0, "device_years": 0.0, "score": 100.0} | changes
    return device_failures_per_hour(**fields) * HOURS_PER_YEAR  # type: ignore[arg-type]


def test_a_class_that_nobody_has_seen_fails_as_others_do() -> None:
    assert yearly() == pytest.approx(0.05)
    assert all(yearly() / 2 < rate < 2 * yearly() for _, rate, _ in FAILURES_PER_GPU_YEAR)
    assert CLASS_PRIOR.probability(1.0) == pytest.approx(0.048, abs=0.001)


def test_a_bad_batch_shows_and_a_good_one_too() -> None:
    assert yearly(failures=5, device_years=10) == pytest.approx(0.14)
    assert yearly(failures=119, device_years=1000) == pytest.approx(0.116, abs=0.001), "Titan's third year"
    assert yearly(device_years=200) == pytest.approx(0.0083, abs=0.0001)


def test_condition_counts_and_an_uninspected_card_is_not_a_good_one() -> None:
    assert yearly(score=90.0) / yearly() == pytest.approx(math.exp(0.35))
    assert yearly(score=None) > 2.8 * yearly()


def test_a_new_host_is_expected_to_leave_once_a_day_and_a_steady_one_is_not() -> None:
    assert host_departures_per_hour(departures=0, hours=0) == pytest.approx(1 / 24)
    assert host_departures_per_hour(departures=1, hours=24 * 99) == pytest.approx(2 / (24 * 100))


@given(st.floats(1e-6, 1), st.floats(0.01, 100), st.floats(0.001, 1))
def test_more_failures_lose_more_and_a_checkpoint_is_never_further_than_the_work_is_long(
    rate: float, hours: float, cost: float
) -> None:
    with_checkpoints = risk(rate, hours=hours, checkpoint_cost_hours=cost)
    worse = risk(rate * 1.5, hours=hours, checkpoint_cost_hours=cost)
    assert worse.lost_hours >= with_checkpoints.lost_hours >= 0
    assert worse.probability >= with_checkpoints.probability
    assert 0 <= with_checkpoints.probability <= 1


def test_young_is_the_first_order_of_daly() -> None:
    interval = checkpoint_interval_hours(cost_hours=0.01, failures_per_hour=1 / 24)
    assert interval == pytest.approx(math.sqrt(2 * 0.01 * 24), rel=0.02)
    assert checkpoint_interval_hours(cost_hours=50, failures_per_hour=1) == 1


@pytest.mark.parametrize(
    ("rate", "hours", "cost"), [(0.2, 10.0, 0.05), (1 / 24, 48.0, 0.02), (0.1, 8.0, None)]
)
def test_what_is_expected_to_be_lost_is_what_a_simulation_loses(
    rate: float, hours: float, cost: float | None
) -> None:
    found = risk(rate, hours=hours, checkpoint_cost_hours=cost, restart_hours=0.1)
    rng = random.Random(1)
    interval = hours if found.checkpoint_seconds is None else found.checkpoint_seconds / 3600
    lost = statistics.fmean(_run(rng, rate, hours, interval, cost or 0.0, 0.1) for _ in range(2000)) - hours
    assert found.lost_hours == pytest.approx(lost, rel=0.15)


def _run(
    rng: random.Random, rate: float, hours: float, interval: float, cost: float, restart: float
) -> float:
    """Hours until the work is done, each segment again and again until it has held."""
    spent, left = 0.0, hours
    while left > 1e-9:
        segment = min(interval, left)
        while (failure := rng.expovariate(rate)) < segment + cost:
            spent += failure + restart
        spent += segment + cost
        left -= segment
    return spent
