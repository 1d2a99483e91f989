"""A device that fails in use ends its run, by that cause and no other; nobody pays for what came after."""

from __future__ import annotations

import pytest
from agent_samples import order, status

from perak.agent import events, instructions
from perak.agent.core import Core

GPU = "GPU-1"
FAULT = events.DeviceFaulted(
    device=GPU, detail=f"{GPU}: the driver told Xid 79: it fell off the bus", at=100.7
)


@pytest.fixture
def node() -> Core:
    """With one run, on the device."""
    found = Core(meter_interval_seconds=5)
    found.handle(events.DesiredReceived(leases=(order(devices=(GPU,)),)))
    return found


def started(node: Core) -> None:
    node.handle(events.PrepareDone(run=order().run))
    node.handle(events.StatusChanged(status=status(order())))


def ended(node: Core, cause: str, exit_code: int | None) -> None:
    node.handle(
        events.StatusChanged(status=status(order(), "exited", cause=cause, exit_code=exit_code, detail=None))
    )


def last_report(node: Core) -> instructions.ReportExit:
    (last,) = node.handle(events.LogDrained(run=order().run))
    assert isinstance(last, instructions.ReportExit)
    return last


def test_a_device_that_fails_ends_its_run_and_no_later_second_is_proven(node: Core) -> None:
    started(node)
    assert node.handle(events.Tick(now=0.0)) == []
    assert node.handle(FAULT) == [instructions.Stop(run=order().run, cause="device_fault")]
    assert node.handle(FAULT) == [], "a lost device is told lost again and again"
    assert node.handle(events.Tick(now=60.0)) == []
    ended(node, "stopped", None)
    last = last_report(node)
    assert (last.cause, last.detail, last.failed_at) == ("device_fault", FAULT.detail, 100.7)


def test_another_runs_device_is_none_of_its_business(node: Core) -> None:
    started(node)
    assert node.handle(events.DeviceFaulted(device="GPU-2", detail="x", at=1.0)) == []


@pytest.mark.parametrize(("cause", "code"), [("exited", 1), ("signal", 134), ("setup", 1)])
def test_a_program_that_failed_on_a_failing_device_was_not_itself_at_fault(
    node: Core, cause: str, code: int
) -> None:
    """It mostly ends before anybody looks: the driver is asked once more before the report."""
    started(node)
    ended(node, cause, code)
    node.handle(FAULT)
    last = last_report(node)
    assert (last.cause, last.detail) == ("device_fault", FAULT.detail)


@pytest.mark.parametrize(("cause", "code"), [("exited", 0), ("oom", 137), ("max_duration", None)])
def test_an_end_that_is_not_the_devices_doing_stays_what_it_is(
    node: Core, cause: str, code: int | None
) -> None:
    started(node)
    ended(node, cause, code)
    node.handle(FAULT)
    last = last_report(node)
    assert (last.cause, last.failed_at) == (cause, None)
    assert last.detail == FAULT.detail, "it is told all the same"


def test_a_stop_that_was_asked_for_before_keeps_its_cause(node: Core) -> None:
    started(node)
    node.handle(
        events.DesiredReceived(leases=(order(devices=(GPU,), wanted="stop", stop_cause="cancelled"),))
    )
    assert node.handle(FAULT) == []
    ended(node, "stopped", None)
    assert last_report(node).cause == "cancelled"


def test_a_fault_after_the_end_was_looked_at_is_the_next_ones(node: Core) -> None:
    started(node)
    ended(node, "exited", 1)
    last = last_report(node)
    assert node.handle(FAULT) == []
    assert last.cause == "exited"


def test_a_run_that_has_not_started_is_given_back(node: Core) -> None:
    (last,) = node.handle(FAULT)
    assert isinstance(last, instructions.ReportExit)
    assert (last.cause, last.status, last.failed_at) == ("device_fault", None, None)
