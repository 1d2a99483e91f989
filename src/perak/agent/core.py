"""What a node does about its runs: `events` in, `instructions` out; no I/O, no clock.

The core is level-triggered. It keeps a few facts about every run and compares them with what the exchange
desires; `_next` is the whole policy, read from the top::

    adopted ──> preparing ──> starting ──> running ──> draining ──> collecting ──> reported ──> released
       │            │            │            │ stop                                  ^
       └────────────┴────────────┴────────────┴───────────── refused or stopped ──────┘

At most one piece of work per run is under way; its completion comes back as an event, and any event may come
twice, late or out of order. What holds whatever comes:

* a run's sandbox is started at most once, over restarts of the agent too;
* a run is released only after its last report is acknowledged and the exchange no longer lists it;
* a run that isn't desired, or whose lease has passed to a newer epoch, is stopped as "fenced";
* silence stops nothing but a run that would draw more than its lease allows: only a list from the exchange
  does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from perak.agent.events import (
    CutOff,
    DesiredReceived,
    DeviceFaulted,
    Drain,
    Drawn,
    Event,
    ExitAcknowledged,
    ExitJournalled,
    Failed,
    Joined,
    LogDrained,
    OutputsPacked,
    PrepareDone,
    Released,
    RunFound,
    StatusChanged,
    Tick,
    WasReleased,
)
from perak.agent.instructions import (
    Adopt,
    CollectOutputs,
    DrainLog,
    Instruction,
    Meter,
    Prepare,
    Release,
    ReportExit,
    ReportRefused,
    ReportStarted,
    Start,
    Stop,
)
from perak.domain.carbon.budget import READING_SECONDS, STOP, judge_budget
from perak.domain.errors import InvalidInput
from perak.domain.ids import check_id
from perak.domain.report import CAUSES, OutputBlob
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.sandbox import RunStatus

RELEASED_REMEMBERED_MAX = 4096
"""Runs that are gone but never started again, should a late list name them: days of work of a busy node."""

NO_OUTPUTS_AFTER = frozenset({"fenced", "sandbox", "setup"})
"""After these the work folder is another run's business, or holds nothing that the job made."""

MAY_BE_THE_DEVICES = frozenset({"exited", "signal", "setup"})
"""How a program ends whose device failed under it: by itself, before anybody looked at the device."""

_FROM_SANDBOX = {"lost": "sandbox"}
"""The sandbox's words for an end that have another name in reports."""


class Exit(IntEnum):
    """How far the last report of a run has come."""

    NONE = 0
    ASKED = 1
    JOURNALLED = 2
    ACKNOWLEDGED = 3


@dataclass(slots=True, kw_only=True)
class RunFacts:
    """What the core knows of one run."""

    order: LeaseOrder
    adopted: bool = False
    busy: str | None = None
    """The one piece of work under way: prepare, start, drain, collect or release."""
    prepared: bool = False
    start_asked: bool = False
    started_reported: bool = False
    status: RunStatus | None = None
    stop_cause: str | None = None
    stop_asked: bool = False
    failure: tuple[str, str] | None = None
    """(cause, detail) of work that failed before the run was running."""
    drained: bool = False
    collected: bool = False
    outputs: OutputBlob | None = None
    outputs_failure: str | None = None
    exit: Exit = Exit.NONE
    fault: DeviceFaulted | None = None
    """The first one of a device of it, told before its log was drained."""
    metered_at: float | None = None
    drawn: Drawn | None = None
    """Its last reading in this life of the agent."""

    @property
    def has_ended(self) -> bool:
        return self.status is not None and self.status.state in ("exited", "lost")

    @property
    def is_running(self) -> bool:
        return self.status is not None and self.status.state == "running"


@dataclass(slots=True)
class Core:
    """The runs of one node. `meter_interval_seconds` may be changed while it lives."""

    meter_interval_seconds: float
    runs: dict[str, RunFacts] = field(default_factory=dict)
    desired: dict[str, LeaseOrder] | None = None
    """By run; None until the first list came: then nothing is stopped or released."""
    released: dict[str, int] = field(default_factory=dict)
    """Run -> epoch of the runs that are gone, oldest first."""
    draining: bool = False
    alone: bool = True
    """Whether the exchange can't be asked now: then what a lease allows to be drawn is kept here."""

    def handle(self, event: Event) -> list[Instruction]:
        """The instructions that follow from `event`, to be carried out in order."""
        match event:
            case DesiredReceived(leases=leases):
                return self._on_desired(leases)
            case Drain():
                self.draining = True
                return [i for run in list(self.runs) for i in self._advance(run)]
            case Tick(now=now):
                return self._on_tick(now)
            case Drawn():
                return self._on_drawn(event)
            case Joined():
                self.alone = False
                return []
            case CutOff():
                self.alone = True
                return [Meter(order=facts.order) for facts in self._metered() if self._is_bounded(facts)]
            case RunFound():
                return self._on_found(event)
            case WasReleased(run=run, epoch=epoch):
                self._remember_released(run, epoch)
                return []
            case StatusChanged(status=status):
                return self._on_fact(status.run_id, event)
            case DeviceFaulted(device=device):
                runs = [run for run, facts in self.runs.items() if device in facts.order.devices]
                return [i for run in runs for i in self._on_fact(run, event)]
            case _:
                return self._on_fact(event.run, event)

    def _on_desired(self, leases: Iterable[LeaseOrder]) -> list[Instruction]:
        known = {order.run: order for order in leases if _is_usable(order)}
        self.desired = known
        for order in known.values():
            self._adopt(order)
        return [i for run in list(self.runs) for i in self._advance(run)]

    def _adopt(self, order: LeaseOrder) -> None:
        """Begin a run that is new; one that is known or gone is never begun again."""
        if order.run in self.runs or self.draining:
            return
        if self.released.get(order.run, -1) >= order.epoch:
            return
        self.runs[order.run] = RunFacts(order=order)

    def _on_found(self, found: RunFound) -> list[Instruction]:
        run = found.order.run
        if run in self.runs or self.released.get(run, -1) >= found.order.epoch:
            return []
        self.runs[run] = facts = RunFacts(
            order=found.order,
            adopted=True,
            prepared=found.start_asked,
            start_asked=found.start_asked,
            started_reported=found.started_reported,
            stop_cause=found.stop_cause,
            exit=_exit_of(found),
        )
        began = found.status is not None and found.status.state != "prepared"
        if began:
            facts.prepared = facts.start_asked = True
            facts.status = found.status
        elif found.start_asked and facts.exit is Exit.NONE:
            facts.failure = ("sandbox", "the agent was restarted while it started the sandbox")
        return self._advance(run)

    def _on_tick(self, now: float) -> list[Instruction]:
        due: list[Instruction] = []
        for facts in self._metered():
            if facts.metered_at is None:
                facts.metered_at = now
            elif now - facts.metered_at >= self._interval_seconds(facts):
                facts.metered_at = now
                due.append(Meter(order=facts.order))
        return due

    def _metered(self) -> Iterator[RunFacts]:
        """The runs whose use is read; not on a device that failed, where no second proves anything."""
        return (
            each
            for each in self.runs.values()
            if each.is_running and each.exit is Exit.NONE and each.fault is None
        )

    def _interval_seconds(self, facts: RunFacts) -> float:
        """Of a run that may draw no more than so much the first reading is not put off."""
        if facts.drawn is None and self._is_bounded(facts):
            return min(READING_SECONDS, self.meter_interval_seconds)
        return self.meter_interval_seconds

    def _on_drawn(self, now: Drawn) -> list[Instruction]:
        """Where nobody else can, end a run before it draws more than its lease allows."""
        facts = self.runs.get(now.run)
        if facts is None or not facts.is_running:
            return []
        before, facts.drawn = facts.drawn, now
        most = self._joules_max(facts)
        if not self.alone or most is None or facts.stop_cause is not None:
            return []
        assert facts.status is not None
        since = before.at if before is not None else facts.status.started_at or now.at
        told = judge_budget(
            budget=most,
            before=0.0 if before is None else before.joules,
            now=now.joules,
            seconds_between=now.at - since,
            seconds_to_next=self.meter_interval_seconds,
        )
        if told != STOP:
            return []
        facts.stop_cause = "max_carbon"
        return list(self._next(facts))

    def _is_bounded(self, facts: RunFacts) -> bool:
        return self._joules_max(facts) is not None

    def _joules_max(self, facts: RunFacts) -> float | None:
        """As the exchange said last, which counts it anew as the run goes on."""
        listed = (self.desired or {}).get(facts.order.run)
        if listed is None or listed.epoch != facts.order.epoch:
            return facts.order.joules_max
        return listed.joules_max

    def _on_fact(self, run: str, event: Event) -> list[Instruction]:
        facts = self.runs.get(run)
        if facts is None:
            return []
        _learn(facts, event)
        if isinstance(event, Released) and facts.busy == "release":
            del self.runs[run]
            self._remember_released(run, facts.order.epoch)
            return self._again(run)
        return self._advance(run)

    def _again(self, run: str) -> list[Instruction]:
        """A newer epoch of the same run may have waited for the older one to go."""
        order = (self.desired or {}).get(run)
        if order is None:
            return []
        self._adopt(order)
        return self._advance(run) if run in self.runs else []

    def _remember_released(self, run: str, epoch: int) -> None:
        self.released[run] = max(epoch, self.released.pop(run, -1))
        while len(self.released) > RELEASED_REMEMBERED_MAX:
            del self.released[next(iter(self.released))]

    def _advance(self, run: str) -> list[Instruction]:
        facts = self.runs[run]
        if facts.stop_cause is None:
            facts.stop_cause = self._wanted_stop(facts)
        return list(self._next(facts))

    def _wanted_stop(self, facts: RunFacts) -> str | None:
        """Why this run should end now, if it should."""
        if self.draining:
            return "node_lost"
        if facts.fault is not None:
            return "device_fault"
        if self.desired is None:
            return None
        order = self.desired.get(facts.order.run)
        if order is None or order.epoch > facts.order.epoch:
            return "fenced"
        if order.epoch == facts.order.epoch and order.wanted == "stop":
            return order.stop_cause if order.stop_cause in CAUSES else "cancelled"
        return None  # An older epoch is an older list: it says nothing about this run.

    def _is_listed(self, facts: RunFacts) -> bool:
        """Whether the exchange still has this lease, as far as is known."""
        if self.desired is None:
            return True
        order = self.desired.get(facts.order.run)
        return order is not None and order.epoch == facts.order.epoch

    def _next(self, facts: RunFacts) -> Iterator[Instruction]:
        """What is to be done now for one run; marks as asked what it asks for."""
        order = facts.order
        if not facts.adopted:
            facts.adopted = True
            yield Adopt(order=order)
        if facts.exit is not Exit.NONE:
            if facts.exit is Exit.ACKNOWLEDGED and not facts.busy and not self._is_listed(facts):
                facts.busy = "release"
                yield Release(run=order.run)
            return
        if facts.status is not None and facts.status.started_at and not facts.started_reported:
            facts.started_reported = True
            yield ReportStarted(order=order, status=facts.status)
        if facts.has_ended:
            yield from _after_the_end(facts)
        elif facts.failure is not None:
            facts.exit = Exit.ASKED
            yield ReportRefused(order=order, cause=facts.failure[0], detail=facts.failure[1])
        elif facts.stop_cause is not None:
            yield from _stop(facts, facts.stop_cause)
        elif facts.busy is None and not facts.prepared:
            facts.busy = "prepare"
            yield Prepare(order=order)
        elif facts.busy is None and not facts.start_asked:
            facts.start_asked = True
            facts.busy = "start"
            yield Start(run=order.run)


def _after_the_end(facts: RunFacts) -> Iterator[Instruction]:
    """The log, then the outputs, then the last report: in this order, so that the report closes the run."""
    status = facts.status
    assert status is not None
    if facts.busy is not None:
        return
    cause = _cause(facts)
    if not facts.drained:
        facts.busy = "drain"
        yield DrainLog(order=facts.order, status=status)
    elif facts.order.outputs and not facts.collected and cause not in NO_OUTPUTS_AFTER:
        facts.busy = "collect"
        yield CollectOutputs(order=facts.order)
    else:
        facts.exit = Exit.ASKED
        detail = status.detail
        if facts.outputs_failure is not None:
            detail = facts.outputs_failure
            if cause == "exited" and status.exit_code == 0:
                cause = "outputs"
        failed_at = None
        if facts.fault is not None and (cause == "device_fault" or detail is None):
            detail = facts.fault.detail
            failed_at = facts.fault.at if cause == "device_fault" else None
        yield ReportExit(
            order=facts.order,
            cause=cause,
            detail=detail,
            status=status,
            outputs=facts.outputs,
            failed_at=failed_at,
        )


def _stop(facts: RunFacts, cause: str) -> Iterator[Instruction]:
    if facts.is_running:
        if not facts.stop_asked:
            facts.stop_asked = True
            yield Stop(run=facts.order.run, cause=cause)
    elif not facts.start_asked:
        facts.exit = Exit.ASKED
        detail = f"it had not started: {CAUSES[cause]}"
        yield ReportExit(order=facts.order, cause=cause, detail=detail, status=None, outputs=None)
    # Else the start is under way: its outcome decides.


def _learn(facts: RunFacts, event: Event) -> None:
    """Take in one fact. What comes late or twice changes nothing."""
    match event:
        case PrepareDone() if facts.busy == "prepare":
            facts.busy = None
            facts.prepared = True
        case Failed(cause=cause, detail=detail) if facts.busy in ("prepare", "start"):
            facts.busy = None
            facts.failure = (cause, detail)
        case StatusChanged(status=status):
            _learn_status(facts, status)
        case DeviceFaulted() if facts.fault is None and not facts.drained:
            facts.fault = event
        case LogDrained() if facts.busy == "drain":
            facts.busy = None
            facts.drained = True
        case OutputsPacked(outputs=outputs, failure=failure) if facts.busy == "collect":
            facts.busy = None
            facts.collected = True
            facts.outputs = outputs
            facts.outputs_failure = failure
        case ExitJournalled() if facts.exit is Exit.ASKED:
            facts.exit = Exit.JOURNALLED
        case ExitAcknowledged() if facts.exit is Exit.JOURNALLED:
            facts.exit = Exit.ACKNOWLEDGED
        case _:
            pass


def _learn_status(facts: RunFacts, status: RunStatus) -> None:
    """A run that ended stays ended; one that was never asked to start can't run."""
    if facts.has_ended or not facts.start_asked or status.state == "prepared":
        return
    if facts.busy == "start":
        facts.busy = None
    facts.status = status


def _cause(facts: RunFacts) -> str:
    """Why the run ended, in the words of reports."""
    assert facts.status is not None
    cause = facts.status.cause or "sandbox"
    if cause == "stopped":
        return facts.stop_cause or "fenced"
    if facts.fault is not None and cause in MAY_BE_THE_DEVICES and facts.status.exit_code != 0:
        return "device_fault"
    return _FROM_SANDBOX.get(cause, cause)


def _exit_of(found: RunFound) -> Exit:
    if found.exit_acknowledged:
        return Exit.ACKNOWLEDGED
    return Exit.JOURNALLED if found.exit_journalled else Exit.NONE


def _is_usable(order: LeaseOrder) -> bool:
    """Ids become names of files: one that isn't an id is left alone."""
    try:
        check_id(order.run, "run")
        check_id(order.lease, "lease")
    except InvalidInput:
        return False
    return True
