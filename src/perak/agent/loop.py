"""The agent at work: feeds its core, carries out what follows, and is the exchange's peer.

Everything here runs on one event loop. What takes time is in `steps`, what is told of runs in `logs` and
`run_reports`, of the node in `offering` and `health_reports`; what blocks goes to the threads of `tasks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perak.agent import events, instructions
from perak.agent.core import Core, Exit
from perak.agent.health_reports import HealthReports
from perak.agent.identity import Identity
from perak.agent.inspect.care import Care
from perak.agent.journal import Journal, RunRecord
from perak.agent.link import Link
from perak.agent.logs import Logs
from perak.agent.meter.energy import EnergyMeter
from perak.agent.network.proxy import NetworkProxy
from perak.agent.offering import Offering
from perak.agent.probe.temperatures import Thermometer
from perak.agent.run_reports import RunReports
from perak.agent.sandbox import RunStatus, Sandbox, TierReport
from perak.agent.settings import Limits
from perak.agent.steps import Steps
from perak.agent.tasks import Tasks
from perak.agent.tunnels.keeper import Keeper
from perak.agent.work import Work
from perak.domain.errors import DomainError
from perak.domain.hardware.fault import is_grave, told
from perak.domain.offer import OfferAsk
from perak.domain.report import Body, Faulted
from perak.wire.session import Desired, Dial, Prove, Welcome

log = logging.getLogger(__name__)

DRAIN_LOOK_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class Node:
    """The agent at work: one journal, one sandbox, one session. `ask` makes the offer of now."""

    identity: Identity
    journal: Journal
    sandbox: Sandbox
    tier: TierReport
    work: Work
    meter: EnergyMeter
    thermometer: Thermometer
    limits: Limits
    version: str
    ask: Callable[[], OfferAsk]
    network: NetworkProxy
    tunnels: Keeper
    make_care: Callable[[Callable[[Body], int], Callable[[], set[str]]], Care] | None = None
    """Who looks after the devices, given how to report and which ones runs have; None: nobody."""
    _care: Care | None = field(init=False, default=None)
    _core: Core = field(init=False)
    _link: Link = field(init=False)
    _tasks: Tasks = field(init=False)
    _logs: Logs = field(init=False)
    _runs: RunReports = field(init=False)
    _offering: Offering = field(init=False)
    _health: HealthReports = field(init=False)
    _steps: Steps = field(init=False)
    _orphans: dict[str, RunStatus] = field(default_factory=dict)
    """Runs of the sandbox that the journal does not know, until the exchange says what they are."""

    def __post_init__(self) -> None:
        limits = self.limits
        self._core = Core(limits.meter_interval_seconds)
        self._tasks = Tasks(slow_threads_max=limits.slow_threads_max)
        if self.make_care is not None:
            self._care = self.make_care(self._report, self._busy_devices)
        self._link = Link(
            url=self.identity.url,
            tls=self.identity.tls,
            reports=self.journal,
            peer=self,
            open_timeout_seconds=limits.open_timeout_seconds,
            silent_beats_max=limits.silent_beats_max,
            reconnect_first_seconds=limits.reconnect_first_seconds,
            reconnect_max_seconds=limits.reconnect_max_seconds,
        )
        self._logs = Logs(
            core=self._core, journal=self.journal, sandbox=self.sandbox, limits=limits, report=self._report
        )
        self._runs = RunReports(
            report=self._report,
            journal=self.journal,
            sandbox=self.sandbox,
            tier=self.tier,
            tiers=self.work.tiers,
            meter=self.meter,
            network=self.network,
        )
        self._offering = Offering(
            ask=self.ask,
            tiers=self.work.tiers,
            report=self._report,
            check_seconds=limits.offer_check_seconds,
        )
        self._health = HealthReports(
            tasks=self._tasks,
            thermometer=self.thermometer,
            limits=limits,
            report=self._report,
            on_fault=self._on_fault,
            on_reported=lambda fault: self._care.faulted(fault.device) if self._care is not None else None,
        )
        self._steps = Steps(
            core=self._core,
            tasks=self._tasks,
            work=self.work,
            journal=self.journal,
            sandbox=self.sandbox,
            limits=limits,
            logs=self._logs,
            reports=self._runs,
            care=self._care,
            feed=self._feed,
            observe=self._observe,
            look_for_faults=self._health.look_for_faults,
        )

    async def run(self, stop: asyncio.Event, *, drain: bool, on_ready: Callable[[], None]) -> None:
        """Work until `stop` is set; runs live on unless `drain`. Raises SessionRefused when turned away.

        `on_ready` is called once, when the exchange has the offer.
        """
        loop = asyncio.get_running_loop()
        poke = self.sandbox.open_poke_socket()
        loop.add_reader(poke.fileno(), self._on_poke, poke)
        self._offering.on_ready = on_ready
        self._find_runs()
        self.network.listen(self.sandbox.state_dir)
        self._tasks.spawn(self._link.run())
        self._tasks.spawn(self._tick())
        self._tasks.spawn(self._offering.watch())
        self._tasks.spawn(self._health.watch())
        if self._care is not None:
            self._tasks.spawn(self._care.watch())
        try:
            await self._tasks.until(stop)
            if drain:
                await self._drain()
        finally:
            loop.remove_reader(poke.fileno())
            poke.close()
            self.network.stop()
            await self._tasks.cancel()
            await self.tunnels.close()
            self._tasks.shut()

    async def _drain(self) -> None:
        """End every run and see its last report acknowledged, for a bounded time."""
        self._feed(events.Drain())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds_max):
                # Runs are settled in many places and an agent leaves once: looking is simpler than telling.
                while self._unsettled():  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_LOOK_SECONDS)
        if left := self._unsettled():
            log.warning("left before the last report of %s was acknowledged", ", ".join(left))

    def _unsettled(self) -> list[str]:
        """The runs whose last report is not acknowledged."""
        return [run for run, facts in self._core.runs.items() if facts.exit is not Exit.ACKNOWLEDGED]

    def _report(self, body: Body) -> int:
        seq = self.journal.append(body, at=_now_ms())
        self._link.wake()
        return seq

    # What the link hears

    def hello(self, nonce: str, agent_id: str) -> str:
        return self.identity.sign_hello(
            nonce=nonce, agent_id=agent_id, version=self.version, at=_now_ms()
        )  # fmt: skip

    def on_welcome(self, welcome: Welcome) -> None:
        interval = min(self.limits.meter_interval_seconds, welcome.beat_interval_seconds)
        self._core.meter_interval_seconds = interval
        self._feed(events.Joined())
        if welcome.certificate is not None:
            self._take_certificate(welcome.certificate, before_keeping=self.journal.sign_anew)
        for run in self.journal.reconcile(welcome.ack):
            self._feed(events.ExitAcknowledged(run=run))
        self._offering.welcomed(welcome.ack)

    def on_ack(self, seq: int) -> None:
        for run in self.journal.acknowledge(seq):
            self._feed(events.ExitAcknowledged(run=run))
        self._offering.acknowledged(seq)

    def on_desired(self, desired: Desired) -> None:
        self._settle_orphans(desired)
        self._feed(events.DesiredReceived(leases=desired.leases))

    def on_certificate(self, chain_pem: str) -> None:
        self._take_certificate(chain_pem, before_keeping=lambda: None)

    def _take_certificate(self, chain_pem: str, *, before_keeping: Callable[[], None]) -> None:
        """Use a fresh certificate; an agent that dies before that shows its old one again."""
        try:
            self.identity.renew(chain_pem)
        except DomainError as error:
            log.warning("the new certificate is not taken: %s", error)
        else:
            before_keeping()
            self.identity.keep_certificate()
            log.info("certificate renewed")

    def on_dial(self, dial: Dial) -> None:
        """A renter waits for a terminal; only in a run that lives here under that very lease."""
        facts = self._core.runs.get(dial.run)
        if facts is None or facts.order.lease != dial.lease or not facts.start_asked or facts.has_ended:
            log.info("a tunnel to run %s is not opened: it does not run here", dial.run[:80])
        elif not self._offering.grants("terminals"):
            log.warning("a tunnel to run %s is not opened: the provider forbids terminals", dial.run)
        else:
            self._tasks.spawn(self.tunnels.dial(dial))

    def on_prove(self, prove: Prove) -> None:
        if self._care is not None:
            self._tasks.spawn(self._care.challenged(prove.challenge))

    def on_closed(self) -> None:
        self._core.meter_interval_seconds = self.limits.meter_interval_offline_seconds
        self._feed(events.CutOff())

    def _on_fault(self, fault: Faulted) -> None:
        """End what runs on a device that failed."""
        if is_grave(fault):
            detail = f"{fault.device}: {told(fault)}"
            self._feed(events.DeviceFaulted(device=fault.device, detail=detail, at=time.time()))

    # From events to deeds

    def _feed(self, event: events.Event) -> None:
        for instruction in self._core.handle(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: instructions.Instruction) -> None:
        match instruction:
            case instructions.Adopt(order=order):
                self.journal.adopt(order)
                self._logs.take_up(order.run)
                log.info("run %s of job %s taken on, lease %s", order.run, order.job, order.lease)
            case instructions.Prepare(order=order):
                self._tasks.spawn(self._steps.prepare(order))
            case instructions.Start(run=run):
                self.journal.mark_start(run)
                self._tasks.spawn(self._steps.start(self._core.runs[run].order))
            case instructions.Stop(run=run, cause=cause):
                self.journal.mark_stop(run, cause)
                self._tasks.spawn(self._steps.stop(run, cause))
            case instructions.ReportStarted(order=order, status=status):
                self._runs.started(order, status)
            case instructions.DrainLog(order=order):
                self._tasks.spawn(self._steps.drain_log(order))
            case instructions.CollectOutputs(order=order):
                self._tasks.spawn(self._steps.collect(order))
            case instructions.ReportExit():
                self._report_exit(instruction)
            case instructions.ReportRefused(order=order, cause=cause, detail=detail):
                self._runs.refused(order, cause, detail)
                self._feed(events.ExitJournalled(run=order.run))
            case instructions.Meter(order=order):
                if (drawn := self._runs.metered(order)) is not None:
                    self._feed(drawn)
            case instructions.Release(run=run):
                self._tasks.spawn(self._steps.release(run))

    def _report_exit(self, last: instructions.ReportExit) -> None:
        order, status = last.order, last.status
        self._runs.exited(last, log_bytes=self._logs.reported_bytes(order.run))
        if self._care is not None and status is not None and status.started_at is not None:
            self._care.after_run(order.lease, order.devices, faulty=last.cause == "device_fault")
            if last.cause == "device_fault":
                self._offering.look()  # With the report, so that nobody is given the device meanwhile.
        self._feed(events.ExitJournalled(run=order.run))

    def _busy_devices(self) -> set[str]:
        """Those that a run has, or is about to have."""
        return {
            uuid
            for facts in self._core.runs.values()
            if facts.exit is Exit.NONE and not facts.has_ended
            for uuid in facts.order.devices
        }

    # Looking at runs

    def _find_runs(self) -> None:
        """Take up what an earlier life left."""
        for run, epoch in self.journal.gone():
            self._feed(events.WasReleased(run=run, epoch=epoch))
        found = {status.run_id: status for status in self.sandbox.find()}
        for record in self.journal.records():
            run = record.order.run
            self._logs.take_up(run, prefix_bytes=record.prefix_bytes, log_bytes=record.log_bytes)
            self._runs.take_up(run, record.meter)
            self._feed(_found(record, found.pop(run, None)))
        self._orphans = found

    def _settle_orphans(self, desired: Desired) -> None:
        """The journal was lost: the exchange's list says whose these runs are; the others end."""
        orders = {order.run: order for order in desired.leases}
        while self._orphans:
            run, status = self._orphans.popitem()
            order = orders.get(run)
            if order is None:
                log.warning("run %s is not in the journal and not desired: it is cleared away", run)
                self._tasks.spawn(self._clear_orphan(run))
                continue
            self.journal.adopt(order)
            self._logs.take_up(run)
            began = status.state != "prepared"
            self._feed(events.RunFound(order=order, status=status, start_asked=began))

    async def _clear_orphan(self, run: str) -> None:
        with contextlib.suppress(OSError, RuntimeError, LookupError):
            self.sandbox.stop(run, reason="fenced", grace_seconds=0)
        await self._steps.release(run)

    def _on_poke(self, poke: Any) -> None:
        """Shims have news; the same run may be named many times."""
        runs: set[str] = set()
        while True:
            try:
                runs.add(poke.recv(256).decode(errors="replace"))
            except BlockingIOError:
                break
        for run in runs:
            self._observe(run)

    def _observe(self, run: str) -> None:
        """Look at a run now: its state, and what it has written."""
        facts = self._core.runs.get(run)
        if facts is None or not facts.start_asked or facts.has_ended:
            return
        try:
            status = self.sandbox.status(run)
        except KeyError:
            return
        self._feed(events.StatusChanged(status=status))
        if not facts.has_ended:
            self._logs.follow(facts.order)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.tick_seconds)
            for run in list(self._core.runs):
                self._observe(run)
            self._feed(events.Tick(now=loop.time()))


def _found(record: RunRecord, status: RunStatus | None) -> events.RunFound:
    return events.RunFound(
        order=record.order,
        status=status,
        start_asked=record.start_asked,
        started_reported=record.started,
        stop_cause=record.stop_cause,
        exit_journalled=record.exit_journalled,
        exit_acknowledged=record.exit_acknowledged,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
