"""What the end of a run means for its job, and what it costs whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.job import RETRY_CAUSES, Retry
from perak.domain.lifecycle import JOB
from perak.domain.outcome import affordable_seconds, hold_for, outcome, rolling_step, settle
from perak.domain.report import CAUSES, NODE_CAUSES
from perak.domain.units import charge

HOUR = 3600
BEGIN = 1_700_000_000_000

prices = st.integers(0, 10**8)
milli = st.integers(1, 16_000)
amounts = st.integers(0, 10**12)
moments = st.integers(BEGIN - 10**8, BEGIN + 10**8)


def event(
    cause: str, *, state: str = "running", exit_code: int | None = None, attempts: int = 1, **retry: object
) -> str:
    what = outcome(state=state, cause=cause, exit_code=exit_code, attempts=attempts, retry=Retry(**retry))  # type: ignore[arg-type]
    return what.event


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_the_renter_s_own_failures_fail_and_the_node_s_are_tried_again(cause: str) -> None:
    assert event(cause) == ("requeued" if cause in NODE_CAUSES else "failed")
    assert event(cause, attempts=5, max_attempts=5) == "failed"
    assert event(cause, on=()) == "failed"


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("node_lost", "node_lost"),
        ("sandbox", "node_lost"),
        ("fenced", "node_lost"),
        ("device_fault", "device_fault"),
        ("preempted", "preempted"),
        ("reclaimed", "preempted"),
    ],
)
def test_a_job_says_what_it_is_tried_again_for(cause: str, kind: str) -> None:
    assert event(cause, on=(kind,)) == "requeued"
    assert event(cause, on=tuple(set(RETRY_CAUSES) - {kind})) == "failed"


@pytest.mark.parametrize("state", ["leased", "running", "cancelling"])
def test_a_run_that_ended_well_is_a_success_whatever_was_on_the_way(state: str) -> None:
    assert event("exited", state=state, exit_code=0) == "succeeded"


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_a_job_that_is_being_cancelled_never_runs_again(cause: str) -> None:
    expected = "cancelled" if cause == "cancelled" or cause in NODE_CAUSES else "failed"
    assert event(cause, state="cancelling", exit_code=1) == expected


@pytest.mark.parametrize("state", ["leased", "running", "cancelling"])
@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_every_outcome_is_a_step_that_the_job_can_take(state: str, cause: str) -> None:
    for exit_code in (None, 0, 1):
        assert JOB.allows(state, event(cause, state=state, exit_code=exit_code))


def test_the_reason_says_what_happened() -> None:
    def reason(cause: str, exit_code: int | None, attempts: int, max_attempts: int) -> str | None:
        retry = Retry(max_attempts=max_attempts)
        return outcome(
            state="running", cause=cause, exit_code=exit_code, attempts=attempts, retry=retry
        ).reason

    assert reason("exited", 0, 1, 1) is None
    assert reason("exited", 3, 1, 1) == "the job ended with exit code 3"
    assert reason("oom", 137, 1, 1) == "the job used more memory than it asked for"
    assert reason("node_lost", None, 1, 2) == "the node was lost"
    assert reason("node_lost", None, 2, 2) == "the node was lost, on the last of 2 attempts"
    assert reason("node_lost", None, 1, 1) == "the node was lost, on its only attempt"


@given(
    started=st.none() | moments, until=moments, granted=moments, now=moments,
    price=prices, devices=milli, held=amounts, fee=st.integers(0, 10_000),
)  # fmt: skip
def test_a_settlement_never_takes_more_than_is_held_or_proven(
    started: int | None, until: int, granted: int, now: int, price: int, devices: int, held: int, fee: int
) -> None:
    money = settle(
        started_at_ms=started,
        until_ms=until,
        granted_at_ms=granted,
        now_ms=now,
        price=price,
        devices_milli=devices,
        held=held,
        fee_basis_points=fee,
    )
    assert money.cost == money.payout + money.fee
    assert 0 <= money.cost <= held
    assert min(money.billed_seconds, money.payout, money.fee) >= 0
    assert (money.billed_seconds - 1) * 1000 < max(0, now - granted), "longer than the lease has existed"
    assert (money.billed_seconds - 1) * 1000 < max(0, until - (until if started is None else started))
    if started is None:
        assert (money.billed_seconds, money.cost) == (0, 0)


def test_a_node_s_clock_gives_the_length_and_the_exchange_s_bounds_it() -> None:
    def seconds(until: int, now: int) -> int:
        return settle(
            started_at_ms=BEGIN - 500_000,
            until_ms=BEGIN - 500_000 + until,
            granted_at_ms=BEGIN,
            now_ms=BEGIN + now,
            price=HOUR,
            devices_milli=1000,
            held=10**9,
            fee_basis_points=0,
        ).billed_seconds

    assert seconds(until=100_000, now=101_000) == 100
    assert seconds(until=100_001, now=105_000) == 101
    assert seconds(until=10**9, now=105_000) == 105


@given(
    price=prices, devices=milli, length=st.integers(1, 10**6), max_cost=st.none() | amounts, available=amounts
)
def test_a_hold_is_max_cost_else_the_whole_else_ten_minutes(
    price: int, devices: int, length: int, max_cost: int | None, available: int
) -> None:
    hold = hold_for(
        price=price, devices_milli=devices, seconds=length, max_cost=max_cost, available=available
    )
    whole = charge(price_per_device_hour=price, devices_milli=devices, seconds=length)
    if max_cost is not None:
        assert (hold.amount, hold.mode) == (max_cost, "full")
    elif whole <= available:
        assert (hold.amount, hold.mode) == (whole, "full")
    else:
        assert (hold.amount, hold.mode) == (rolling_step(price=price, devices_milli=devices), "rolling")


@given(price=prices, devices=milli, budget=amounts)
def test_a_budget_buys_every_second_that_it_covers_and_none_more(
    price: int, devices: int, budget: int
) -> None:
    bought = affordable_seconds(price=price, devices_milli=devices, budget=budget)
    if bought is None:
        assert price == 0
        return
    assert charge(price_per_device_hour=price, devices_milli=devices, seconds=bought) <= budget
    assert price * devices * (bought + 1) > budget * 1000 * HOUR
