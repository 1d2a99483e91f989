"""A node that is cut off keeps what its leases allow; while the exchange can be asked, that one judges."""

from __future__ import annotations

from typing import Any

import pytest
from agent_samples import order, status
from hypothesis import given
from hypothesis import strategies as st

from perak.agent import events, instructions
from perak.agent.core import Core

OFFLINE_SECONDS = 60.0
GRACE_SECONDS = 10.0
STARTED_AT = 1_000.0
ONE = order(joules_max=100_000.0)


def running(core: Core, one: Any = ONE) -> None:
    core.handle(events.DesiredReceived(leases=(one,)))
    core.handle(events.PrepareDone(run=one.run))
    core.handle(events.StatusChanged(status=status(one, started_at=STARTED_AT)))


def drawn(joules: float, *, after: float) -> events.Drawn:
    return events.Drawn(run=ONE.run, joules=joules, at=STARTED_AT + after)


@pytest.fixture
def core() -> Core:
    made = Core(meter_interval_seconds=OFFLINE_SECONDS)
    running(made)
    return made


def test_while_the_exchange_can_be_asked_the_node_stops_nothing(core: Core) -> None:
    core.handle(events.Joined())
    assert core.handle(drawn(200_000, after=60)) == []


def test_cut_off_it_reads_at_once_and_stops_a_run_that_would_draw_too_much(core: Core) -> None:
    core.handle(events.Joined())
    core.handle(drawn(80_000, after=800))
    assert core.handle(events.CutOff()) == [instructions.Meter(order=ONE)]
    stop = core.handle(drawn(91_000, after=910))
    assert stop == [instructions.Stop(run=ONE.run, cause="max_carbon")], "100 W for 90 s more are 9,000 J"
    assert core.handle(drawn(92_000, after=920)) == [], "once is enough"


def test_a_run_with_enough_left_goes_on_alone(core: Core) -> None:
    core.handle(events.Joined())
    core.handle(drawn(80_000, after=800))
    core.handle(events.CutOff())
    assert core.handle(drawn(86_000, after=860)) == []


def test_a_run_without_a_bound_is_left_alone(core: Core) -> None:
    free = Core(meter_interval_seconds=OFFLINE_SECONDS)
    running(free, order())
    assert free.handle(events.CutOff()) == []
    assert free.handle(drawn(1e9, after=60)) == []


def test_the_exchange_raises_the_bound_as_the_run_goes_on(core: Core) -> None:
    core.handle(events.DesiredReceived(leases=(order(joules_max=300_000.0),)))
    core.handle(events.CutOff())
    assert core.handle(drawn(150_000, after=1500)) == []
    assert core.handle(drawn(295_000, after=2950)) != []


def test_an_agent_that_starts_anew_cut_off_keeps_the_bound_of_its_journal() -> None:
    core = Core(meter_interval_seconds=5)
    found = status(ONE, started_at=STARTED_AT)
    core.handle(events.RunFound(order=ONE, status=found, start_asked=True, started_reported=True))
    assert core.handle(drawn(99_000, after=990)) == [instructions.Stop(run=ONE.run, cause="max_carbon")]


def test_the_first_reading_of_a_bounded_run_is_not_put_off(core: Core) -> None:
    core.handle(events.Tick(now=0))
    assert core.handle(events.Tick(now=4)) == []
    assert core.handle(events.Tick(now=5)) == [instructions.Meter(order=ONE)]


@given(
    watts=st.floats(min_value=1, max_value=3000),
    cut_after=st.floats(min_value=1, max_value=3600),
    seconds_left=st.floats(min_value=30, max_value=3600),
)
def test_alone_no_run_draws_more_than_it_may(watts: float, cut_after: float, seconds_left: float) -> None:
    """At a steady power, from any cut that leaves as much as the exchange leaves: half a minute's draw."""
    most = watts * (cut_after + seconds_left)
    core = Core(meter_interval_seconds=OFFLINE_SECONDS)
    running(core, order(joules_max=most))
    core.handle(events.CutOff())
    at = cut_after
    while not core.handle(drawn(watts * at, after=at)):
        at += OFFLINE_SECONDS
    assert watts * (at + GRACE_SECONDS) <= most
