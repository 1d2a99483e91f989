"""The node's policy: what follows from what, and what holds whatever comes in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from agent_samples import order, status
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perak.agent import events, instructions
from perak.agent.core import Core
from perak.agent.sandbox import RunStatus
from perak.domain.report import OutputBlob
from perak.wire.session import LeaseOrder


def desired(*orders: LeaseOrder) -> events.DesiredReceived:
    return events.DesiredReceived(leases=orders)


def kinds(asked: list[instructions.Instruction]) -> list[str]:
    return [type(each).__name__ for each in asked]


def running(node: Core, one: LeaseOrder) -> None:
    node.handle(desired(one))
    node.handle(events.PrepareDone(run=one.run))
    node.handle(events.StatusChanged(status=status(one)))


@pytest.fixture
def node() -> Core:
    return Core(meter_interval_seconds=5)


def test_the_way_of_a_run(node: Core) -> None:
    one = order(outputs=("out/",))
    assert kinds(node.handle(desired(one))) == ["Adopt", "Prepare"]
    assert kinds(node.handle(events.PrepareDone(run=one.run))) == ["Start"]
    assert kinds(node.handle(events.StatusChanged(status=status(one)))) == ["ReportStarted"]
    assert kinds(node.handle(events.StatusChanged(status=status(one, "exited")))) == ["DrainLog"]
    assert kinds(node.handle(events.LogDrained(run=one.run))) == ["CollectOutputs"]
    blob = OutputBlob(digest="sha256:00", size_bytes=1, file_count=1)
    (last,) = node.handle(events.OutputsPacked(run=one.run, outputs=blob))
    assert isinstance(last, instructions.ReportExit)
    assert (last.cause, last.outputs) == ("exited", blob)
    assert node.handle(events.ExitJournalled(run=one.run)) == []
    assert node.handle(events.ExitAcknowledged(run=one.run)) == [], "the exchange still lists it"
    assert kinds(node.handle(desired())) == ["Release"]
    assert node.handle(events.Released(run=one.run)) == []
    assert not node.runs


def test_a_run_that_was_too_quick_to_be_seen_running_is_reported_started_first(node: Core) -> None:
    one = order()
    node.handle(desired(one))
    node.handle(events.PrepareDone(run=one.run))
    ended = node.handle(events.StatusChanged(status=status(one, "exited")))
    assert kinds(ended) == ["ReportStarted", "DrainLog"]


def test_a_renters_stop_is_the_cause_of_the_end(node: Core) -> None:
    one = order()
    running(node, one)
    (stop,) = node.handle(desired(order(wanted="stop", stop_cause="funds")))
    assert stop == instructions.Stop(run=one.run, cause="funds")
    assert node.handle(desired(order(wanted="stop", stop_cause="funds"))) == [], "once is enough"
    node.handle(events.StatusChanged(status=status(one, "exited", cause="stopped", exit_code=None)))
    (last,) = node.handle(events.LogDrained(run=one.run))
    assert isinstance(last, instructions.ReportExit)
    assert last.cause == "funds"


def test_a_run_that_ended_by_itself_before_the_stop_reached_it_keeps_its_own_end(node: Core) -> None:
    one = order()
    running(node, one)
    node.handle(desired(order(wanted="stop", stop_cause="cancelled")))
    node.handle(events.StatusChanged(status=status(one, "exited")))
    (last,) = node.handle(events.LogDrained(run=one.run))
    assert isinstance(last, instructions.ReportExit)
    assert (last.cause, last.status and last.status.exit_code) == ("exited", 0)


def test_a_lease_that_vanished_is_fenced(node: Core) -> None:
    one = order()
    running(node, one)
    assert node.handle(desired()) == [instructions.Stop(run=one.run, cause="fenced")]


def test_a_newer_epoch_fences_the_older_run_and_waits_for_its_end(node: Core) -> None:
    old, new = order(epoch=1), order(epoch=2)
    running(node, old)
    assert node.handle(desired(new)) == [instructions.Stop(run=old.run, cause="fenced")]
    node.handle(events.StatusChanged(status=status(old, "exited", cause="stopped")))
    node.handle(events.LogDrained(run=old.run))
    node.handle(events.ExitJournalled(run=old.run))
    assert kinds(node.handle(events.ExitAcknowledged(run=old.run))) == ["Release"]
    assert node.handle(events.Released(run=old.run)) == [
        instructions.Adopt(order=new),
        instructions.Prepare(order=new),
    ]


def test_an_older_list_does_not_stop_a_newer_epoch(node: Core) -> None:
    running(node, order(epoch=2))
    assert node.handle(desired(order(epoch=1))) == []


def test_silence_stops_nothing(node: Core) -> None:
    one = order()
    found = node.handle(
        events.RunFound(order=one, status=status(one), start_asked=True, started_reported=True)
    )
    assert found == []
    assert node.handle(events.Tick(now=0)) == []
    assert kinds(node.handle(events.Tick(now=5))) == ["Meter"], "evidence goes on"


def test_a_stop_before_the_start_reports_an_end_without_a_start(node: Core) -> None:
    one = order(wanted="stop", stop_cause="cancelled")
    adopt, last = node.handle(desired(one))
    assert isinstance(adopt, instructions.Adopt)
    assert isinstance(last, instructions.ReportExit)
    assert (last.cause, last.status) == ("cancelled", None)


def test_a_cancel_during_preparation_does_not_wait_for_it_but_the_release_does(node: Core) -> None:
    one = order()
    node.handle(desired(one))
    (last,) = node.handle(desired(order(wanted="stop", stop_cause="cancelled")))
    assert isinstance(last, instructions.ReportExit)
    node.handle(events.ExitJournalled(run=one.run))
    node.handle(events.ExitAcknowledged(run=one.run))
    assert node.handle(desired()) == [], "the folder is still being filled"
    assert kinds(node.handle(events.PrepareDone(run=one.run))) == ["Release"]


def test_a_failed_preparation_is_refused(node: Core) -> None:
    one = order()
    node.handle(desired(one))
    (refused,) = node.handle(events.Failed(run=one.run, cause="environment", detail="no wheel"))
    assert refused == instructions.ReportRefused(order=one, cause="environment", detail="no wheel")


def test_outputs_that_could_not_be_collected_spoil_a_success_only(node: Core) -> None:
    one = order(outputs=("out/",))
    running(node, one)
    node.handle(events.StatusChanged(status=status(one, "exited")))
    node.handle(events.LogDrained(run=one.run))
    (last,) = node.handle(events.OutputsPacked(run=one.run, outputs=None, failure="too large"))
    assert isinstance(last, instructions.ReportExit)
    assert (last.cause, last.detail) == ("outputs", "too large")


def test_a_start_that_an_earlier_life_did_not_finish_is_never_repeated(node: Core) -> None:
    one = order()
    (refused,) = node.handle(events.RunFound(order=one, status=status(one, "prepared"), start_asked=True))
    assert isinstance(refused, instructions.ReportRefused)
    assert refused.cause == "sandbox"


def test_an_unfinished_preparation_of_an_earlier_life_begins_anew(node: Core) -> None:
    one = order()
    assert kinds(node.handle(events.RunFound(order=one, status=None))) == ["Prepare"]


def test_a_run_that_was_released_is_not_started_by_a_late_list(node: Core) -> None:
    one = order()
    node.handle(events.WasReleased(run=one.run, epoch=1))
    assert node.handle(desired(one)) == []


def test_leaving_for_good_ends_all_and_takes_nothing_new(node: Core) -> None:
    running(node, order(1))
    assert node.handle(events.Drain()) == [instructions.Stop(run=order(1).run, cause="node_lost")]
    assert node.handle(desired(order(1), order(2))) == []


def test_an_order_whose_id_is_no_id_is_left_alone(node: Core) -> None:
    assert node.handle(desired(order(run="run-../../etc@test"))) == []


RUNS = st.integers(1, 2)
ORDERS = st.lists(
    st.builds(
        lambda number, epoch, wanted, outputs: order(
            number, epoch=epoch, wanted=wanted, stop_cause="cancelled", outputs=outputs
        ),
        RUNS,
        st.integers(1, 2),
        st.sampled_from(["run", "run", "stop"]),
        st.sampled_from([(), ("out/",)]),
    ),
    max_size=2,
    unique_by=lambda one: one.run,
)


class AnyOrder(RuleBasedStateMachine):
    """A node in a world where work ends when it likes, events repeat, and the agent dies at any moment.

    The journal and the sandboxes survive the agent; what is under way in its threads does not.
    """

    @initialize()
    def begin(self) -> None:
        self.core = Core(meter_interval_seconds=5)
        self.pending: list[instructions.Instruction] = []
        self.history: list[events.Event] = []
        self.records: dict[str, events.RunFound] = {}
        self.released: dict[str, int] = {}
        self.sandboxes: dict[str, RunStatus] = {}
        self.starts: dict[tuple[str, int], int] = {}
        self.exits: dict[str, int] = {}

    def feed(self, event: events.Event) -> None:
        for instruction in self.core.handle(event):
            self.carry_out(instruction)

    def note(self, run: str, **changes: Any) -> None:
        old = self.records[run]
        fields = {name: getattr(old, name) for name in old.__dataclass_fields__}
        self.records[run] = events.RunFound(**(fields | changes))

    def carry_out(self, instruction: instructions.Instruction) -> None:
        match instruction:
            case instructions.Adopt(order=one):
                assert one.run not in self.records, "one life of a run at a time"
                assert self.released.get(one.run, 0) < one.epoch
                self.records[one.run] = events.RunFound(order=one, status=None)
            case instructions.Start(run=run):
                assert self.sandboxes[run].state == "prepared"
                epoch = self.records[run].order.epoch
                self.starts[run, epoch] = self.starts.get((run, epoch), 0) + 1
                self.note(run, start_asked=True)
                self.pending.append(instruction)
            case instructions.Stop(run=run, cause=cause):
                assert self.sandboxes[run].state in ("running", "exited")
                self.note(run, stop_cause=cause)
                self.pending.append(instruction)
            case instructions.ReportStarted(order=one):
                assert not self.records[one.run].started_reported
                self.note(one.run, started_reported=True)
            case instructions.ReportExit(order=one) | instructions.ReportRefused(order=one):
                assert not self.records[one.run].exit_journalled, "one last report"
                self.note(one.run, exit_journalled=True)
                self.feed(events.ExitJournalled(run=one.run))
            case instructions.Release(run=run):
                assert self.records[run].exit_acknowledged, "its last report is journalled and acknowledged"
                listed = (self.core.desired or {}).get(run)
                assert listed is None or listed.epoch != self.records[run].order.epoch
                self.pending.append(instruction)
            case instructions.Meter():
                pass
            case _:
                self.pending.append(instruction)

    @rule(orders=ORDERS)
    def the_exchange_lists(self, orders: list[LeaseOrder]) -> None:
        event = desired(*orders)
        self.history.append(event)
        self.feed(event)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), fails=st.booleans())
    def work_ends(self, data: st.DataObject, fails: bool) -> None:
        index = data.draw(st.integers(0, len(self.pending) - 1))
        self.finish(self.pending.pop(index), fails=fails)

    def finish(self, instruction: instructions.Instruction, *, fails: bool) -> None:
        event: events.Event | None = None
        match instruction:
            case instructions.Prepare(order=one):
                event = events.PrepareDone(run=one.run)
                if fails:
                    event = events.Failed(run=one.run, cause="environment", detail="no")
                else:
                    self.sandboxes[one.run] = RunStatus(run_id=one.run, state="prepared")
            case instructions.Start(run=run):
                if fails:
                    event = events.Failed(run=run, cause="sandbox", detail="no")
                else:
                    self.sandboxes[run] = RunStatus(run_id=run, state="running", started_at=1.0)
                    event = events.StatusChanged(status=self.sandboxes[run])
            case instructions.Stop(run=run):
                if run in self.sandboxes and self.sandboxes[run].state == "running":
                    self.end(run, "stopped")
            case instructions.DrainLog(order=one):
                event = events.LogDrained(run=one.run)
            case instructions.CollectOutputs(order=one):
                event = events.OutputsPacked(run=one.run, outputs=None, failure="no" if fails else None)
            case instructions.Release(run=run):
                self.sandboxes.pop(run, None)
                self.released[run] = self.records.pop(run).order.epoch
                self.history.clear()
                event = events.Released(run=run)
        if event is not None:
            self.history.append(event)
            self.feed(event)

    @rule(number=RUNS)
    def a_job_ends(self, number: int) -> None:
        run = order(number).run
        if run in self.sandboxes and self.sandboxes[run].state == "running":
            self.end(run, "exited")

    def end(self, run: str, cause: Any) -> None:
        self.sandboxes[run] = RunStatus(
            run_id=run, state="exited", started_at=1.0, ended_at=2.0, exit_code=0, cause=cause
        )

    @rule(number=RUNS)
    def a_run_is_looked_at(self, number: int) -> None:
        run = order(number).run
        if run in self.sandboxes:
            event = events.StatusChanged(status=self.sandboxes[run])
            self.history.append(event)
            self.feed(event)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def an_event_comes_again(self, data: st.DataObject) -> None:
        self.feed(data.draw(st.sampled_from(self.history)))

    @rule(number=RUNS)
    def the_exchange_acknowledges(self, number: int) -> None:
        run = order(number).run
        if run in self.records and self.records[run].exit_journalled:
            self.note(run, exit_acknowledged=True)
            self.feed(events.ExitAcknowledged(run=run))

    @rule(now=st.floats(0, 1e6))
    def time_passes(self, now: float) -> None:
        self.feed(events.Tick(now=now))

    @rule()
    def the_agent_dies_and_comes_back(self) -> None:
        self.core = Core(meter_interval_seconds=5)
        self.pending.clear()
        self.history.clear()
        for run, epoch in self.released.items():
            self.feed(events.WasReleased(run=run, epoch=epoch))
        for run, record in list(self.records.items()):
            self.note(run, status=self.sandboxes.get(run))
            self.feed(self.records.get(run, record))

    @invariant()
    def nothing_is_started_twice(self) -> None:
        assert all(count == 1 for count in self.starts.values())

    @invariant()
    def nothing_runs_unasked(self) -> None:
        for run, found in self.sandboxes.items():
            assert found.state == "prepared" or self.records[run].start_asked

    def teardown(self) -> None:
        """When the exchange wants nothing any more and work is let finish, nothing is left."""
        if not hasattr(self, "core"):
            return
        self.feed(desired())
        for _ in range(20):
            while self.pending:
                self.finish(self.pending.pop(0), fails=False)
            for number in (1, 2):
                self.a_run_is_looked_at(number)
                self.the_exchange_acknowledges(number)
        assert not self.core.runs
        assert not self.sandboxes
        assert not self.records


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
