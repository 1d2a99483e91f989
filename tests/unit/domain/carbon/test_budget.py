"""A carbon budget is kept: whatever a run draws, it is stopped before the budget is crossed."""

from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.budget import GO_ON, STOP, STOP_SECONDS, WARN, judge_budget


def test_the_renter_is_warned_once_on_the_way() -> None:
    told = [
        judge_budget(budget_grams=1000, before=now - 100, now=now, seconds_between=600)
        for now in range(100, 1000, 100)
    ]
    assert told == [GO_ON] * 7 + [WARN, STOP]


def test_what_earlier_attempts_emitted_counts() -> None:
    assert judge_budget(budget_grams=100, before=0, now=1, seconds_between=5, earlier=99.5) == STOP
    assert judge_budget(budget_grams=100, before=0, now=1, seconds_between=3600, earlier=50) == GO_ON


def test_a_run_that_has_just_begun_goes_on() -> None:
    assert judge_budget(budget_grams=100, before=0, now=0, seconds_between=0) == GO_ON


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
            budget_grams=budget, before=(middle - 1) * step, now=middle * step, seconds_between=interval
        )
        low, high = (low, middle) if told == STOP else (middle + 1, high)
    assert low * step + grams_per_second * STOP_SECONDS <= budget * (1 + 1e-9)
