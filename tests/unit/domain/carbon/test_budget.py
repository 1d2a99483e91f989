"""A carbon budget is kept: whatever a run draws, it is stopped before the budget is crossed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.budget import (
    GO_ON,
    READING_SECONDS,
    STOP,
    STOP_SECONDS,
    WARN,
    joules_allowed,
    judge_budget,
    least_keepable_grams,
)


def test_the_renter_is_warned_once_on_the_way() -> None:
    told = [
        judge_budget(budget=1000, before=now - 100, now=now, seconds_between=600)
        for now in range(100, 1000, 100)
    ]
    assert told == [GO_ON] * 7 + [WARN, STOP]


def test_what_earlier_attempts_emitted_counts() -> None:
    assert judge_budget(budget=100, before=0, now=1, seconds_between=5, earlier=99.5) == STOP
    assert judge_budget(budget=100, before=0, now=1, seconds_between=3600, earlier=50) == GO_ON


def test_a_run_that_has_just_begun_goes_on() -> None:
    assert judge_budget(budget=100, before=0, now=0, seconds_between=0) == GO_ON


@given(
    budget=st.floats(min_value=1, max_value=1e6),
    grams_per_second=st.floats(min_value=1e-6, max_value=10),
    interval=st.floats(min_value=1, max_value=60),
)
def test_the_budget_is_never_crossed_at_a_steady_rate(
    budget: float, grams_per_second: float, interval: float
) -> None:
    """Stopped at some reading, a run that takes its time to end is within the budget."""
    step = grams_per_second * interval
    if step + grams_per_second * (interval + STOP_SECONDS) >= budget:
        return  # It would not have been matched: not even two readings fit.
    readings = int(budget / step) + 2
    low, high = 1, readings
    while low < high:  # The first reading that stops it.
        middle = (low + high) // 2
        told = judge_budget(
            budget=budget, before=(middle - 1) * step, now=middle * step, seconds_between=interval
        )
        low, high = (low, middle) if told == STOP else (middle + 1, high)
    assert low * step + grams_per_second * STOP_SECONDS <= budget * (1 + 1e-9)


@given(
    watts=st.floats(min_value=1, max_value=5000),
    grams_per_kwh=st.floats(min_value=1, max_value=1500),
    times=st.floats(min_value=1, max_value=2.4),
)
def test_the_smallest_budget_is_kept_by_a_run_that_draws_more_than_twice_what_is_expected(
    watts: float, grams_per_kwh: float, times: float
) -> None:
    """It is stopped at its first reading, a second late, and takes the ten seconds that a node gives it."""
    budget = least_keepable_grams(watts=watts, grams_per_kwh=grams_per_kwh)
    grams_per_second = times * watts * grams_per_kwh * 1.56 / 3.6e6
    late = READING_SECONDS + 1
    told = judge_budget(budget=budget, before=0, now=grams_per_second * late, seconds_between=late)
    assert told == STOP or times < 1.1
    assert grams_per_second * (late + 10) <= budget


@given(
    left_grams=st.floats(min_value=0.001, max_value=1e6),
    worst=st.floats(min_value=1, max_value=1500),
    drawn=st.floats(min_value=0, max_value=1e9),
    shares=st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=48),
)
def test_joules_that_are_allowed_keep_the_budget_in_no_worse_hours(
    left_grams: float, worst: float, drawn: float, shares: list[float]
) -> None:
    allowed = joules_allowed(left_grams=left_grams, worst_grams_per_kwh=worst, drawn_joules=drawn)
    assert allowed is not None
    each = (allowed - drawn) / len(shares)
    grams = sum(each / 3.6e6 * share * worst * 1.56 for share in shares)
    assert grams <= left_grams * (1 + 1e-6) + drawn * 1e-9


def test_a_budget_that_is_spent_allows_nothing_more_and_clean_power_anything() -> None:
    assert joules_allowed(left_grams=-5, worst_grams_per_kwh=400, drawn_joules=70) == 70
    assert joules_allowed(left_grams=1, worst_grams_per_kwh=0) is None
    assert joules_allowed(left_grams=624, worst_grams_per_kwh=400) == pytest.approx(3.6e6)


def test_a_longer_time_to_the_next_reading_stops_sooner() -> None:
    assert judge_budget(budget=100, before=0, now=5, seconds_between=5) == GO_ON
    assert judge_budget(budget=100, before=0, now=5, seconds_between=5, seconds_to_next=65) == STOP
