"""Carries out the core's instructions: the one place where the agent's parts meet.

Everything here runs on one event loop; what blocks goes to threads and comes back as an event of the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from perak.agent import core
from perak.agent.core import Core, Event, Instruction
from perak.agent.health import FaultWatch, HealthWatch
from perak.agent.identity import Identity
from perak.agent.inspect.care import Care
from perak.agent.journal import Journal, RunRecord
from perak.agent.link import Link
from perak.agent.meter.energy import EnergyMeter, MeterState
from perak.agent.meter.hours import reported
from perak.agent.network.proxy import NetworkProxy
from perak.agent.probe.ask import NothingToOffer
from perak.agent.probe.temperatures import Thermometer
from perak.agent.sandbox import RunStatus, Sandbox, TierReport
from perak.agent.settings import Limits
from perak.agent.tunnels.keeper import Keeper
from perak.agent.work import Work, WorkFailed
from perak.domain.errors import DomainError
from perak.domain.footprint import Energy
from perak.domain.offer import OfferAsk
from perak.domain.report import (
    Body,
    ChecklistPosted,
    LogChunk,
    Metered,
    NetworkUse,
    OfferPosted,
    OutputBlob,
    RunExited,
    RunPreparing,
    RunRefused,
    RunStarted,
)
from perak.wire.session import LOG_CHUNK_BYTES_MAX, Desired, Dial, LeaseOrder, Prove, Welcome

_T = TypeVar("_T")

log = logging.getLogger(__name__)

PREFIX_BYTES_MAX = 64 * 1024
"""The agent's own lines at the start of a log; an installation writes some hundred."""
CHUNKS_AT_ONCE = 4
"""Of one run's log before others get their turn."""
QUICK_THREADS = 4
"""For folders, mounts and processes: each takes milliseconds, most of them in the kernel."""
DRAIN_LOOK_SECONDS = 0.05
RELEASE_TRIES = 30
RELEASE_RETRY_SECONDS = 1.0
"""A run that was killed is gone within a second, unless its disk hangs."""
TIERS_CHECK_SECONDS = 0.5
"""How soon a sandbox tier that was just tried is offered, while there are others to try."""
NO_ENERGY = Energy(joules=0.0, method="none: the run never started", uncertainty_percent=0.0)


@dataclass(slots=True)
class LogTail:
    """How far the log of one run is reported. `offset` counts the agent's own `prefix_bytes` too."""

    prefix_bytes: int = 0
    offset: int = 0
    pumped_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


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
    _tails: dict[str, LogTail] = field(default_factory=dict)
    _meters: dict[str, MeterState] = field(default_factory=dict)
    _orphans: dict[str, RunStatus] = field(default_factory=dict)
    """Runs of the sandbox that the journal does not know, until the exchange says what they are."""
    _offer: tuple[int, OfferAsk] | None = None
    """(number of its report, ask) that was posted last."""
    _checklists_posted: set[str] = field(default_factory=set)
    _acked: int = 0
    _on_ready: Callable[[], None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _failed: asyncio.Future[None] = field(init=False)
    _quick: ThreadPoolExecutor = field(init=False)
    _slow: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._core = Core(self.limits.meter_interval_seconds)
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "quick")
        self._slow = ThreadPoolExecutor(self.limits.slow_threads_max, "slow")
        if self.make_care is not None:
            self._care = self.make_care(self._report, self._busy_devices)
        self._link = Link(
            url=self.identity.url,
            tls=self.identity.tls,
            reports=self.journal,
            peer=self,
            open_timeout_seconds=self.limits.open_timeout_seconds,
            silent_beats_max=self.limits.silent_beats_max,
            reconnect_first_seconds=self.limits.reconnect_first_seconds,
            reconnect_max_seconds=self.limits.reconnect_max_seconds,
        )

    async def run(self, stop: asyncio.Event, *, drain: bool, on_ready: Callable[[], None]) -> None:
        """Work until `stop` is set; runs live on unless `drain`. Raises SessionRefused when turned away.

        `on_ready` is called once, when the exchange has the offer.
        """
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        poke = self.sandbox.open_poke_socket()
        loop.add_reader(poke.fileno(), self._on_poke, poke)
        self._find_runs()
        self.network.listen(self.sandbox.state_dir)
        self._spawn(self._link.run())
        self._spawn(self._tick())
        self._spawn(self._watch_offer())
        self._spawn(self._watch_health())
        if self._care is not None:
            self._spawn(self._care.watch())
        self._on_ready = on_ready
        try:
            await self._until(stop)
            if drain:
                await self._drain()
        finally:
            loop.remove_reader(poke.fileno())
            poke.close()
            self.network.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.tunnels.close()
            self._quick.shutdown(wait=False, cancel_futures=True)
            self._slow.shutdown(wait=False, cancel_futures=True)

    async def _until(self, stop: asyncio.Event) -> None:
        """Until asked to stop, or a task of ours failed; its error is raised."""
        waiting: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        failed: asyncio.Future[Any] = self._failed
        try:
            await asyncio.wait([waiting, failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._failed.done():
            self._failed.result()

    async def _drain(self) -> None:
        """End every run and see its last report acknowledged, for a bounded time."""
        self._feed(core.Drain())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds_max):
                # Runs are settled in many places and an agent leaves once: looking is simpler than telling.
                while self._unsettled():  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_LOOK_SECONDS)
        if left := self._unsettled():
            log.warning("left before the last report of %s was acknowledged", ", ".join(left))

    def _unsettled(self) -> list[str]:
        """The runs whose last report is not acknowledged."""
        return [run for run, facts in self._core.runs.items() if facts.exit is not core.Exit.ACKNOWLEDGED]

    # What the link hears

    def hello(self, nonce: str, agent_id: str) -> str:
        return self.identity.sign_hello(
            nonce=nonce, agent_id=agent_id, version=self.version, at=_now_ms()
        )  # fmt: skip

    def on_welcome(self, welcome: Welcome) -> None:
        interval = min(self.limits.meter_interval_seconds, welcome.beat_interval_seconds)
        self._core.meter_interval_seconds = interval
        self._acked = welcome.ack
        if welcome.certificate is not None:
            self._take_certificate(welcome.certificate, before_keeping=self.journal.sign_anew)
        for run in self.journal.reconcile(welcome.ack):
            self._feed(core.ExitAcknowledged(run=run))
        self._post_offer(again=True)

    def on_ack(self, seq: int) -> None:
        self._acked = seq
        for run in self.journal.acknowledge(seq):
            self._feed(core.ExitAcknowledged(run=run))
        if self._on_ready is not None and self._offer is not None and seq >= self._offer[0]:
            self._on_ready()
            self._on_ready = None

    def on_desired(self, desired: Desired) -> None:
        self._settle_orphans(desired)
        self._feed(core.DesiredReceived(leases=desired.leases))

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
        elif self._offer is None or "terminals" not in self._offer[1].grants:
            log.warning("a tunnel to run %s is not opened: the provider forbids terminals", dial.run)
        else:
            self._spawn(self.tunnels.dial(dial))

    def on_prove(self, prove: Prove) -> None:
        if self._care is not None:
            self._spawn(self._care.challenged(prove.challenge))

    def on_closed(self) -> None:
        self._core.meter_interval_seconds = self.limits.meter_interval_offline_seconds

    # From events to deeds

    def _feed(self, event: Event) -> None:
        for instruction in self._core.handle(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case core.Adopt(order=order):
                self.journal.adopt(order)
                self._tails[order.run] = LogTail()
                log.info("run %s of job %s taken on, lease %s", order.run, order.job, order.lease)
            case core.Prepare(order=order):
                self._spawn(self._prepare(order))
            case core.Start(run=run):
                self.journal.mark_start(run)
                self._spawn(self._start(run, self._core.runs[run].order))
            case core.Stop(run=run, cause=cause):
                self.journal.mark_stop(run, cause)
                self._spawn(self._stop(run, cause))
            case core.ReportStarted(order=order, status=status):
                self._report_started(order, status)
            case core.DrainLog(order=order):
                self._spawn(self._drain_log(order))
            case core.CollectOutputs(order=order):
                self._spawn(self._collect(order))
            case core.ReportExit():
                self._report_exit(instruction)
            case core.ReportRefused(order=order, cause=cause, detail=detail):
                self._report_refused(order, cause, detail)
            case core.Meter(order=order):
                self._report_metered(order)
            case core.Release(run=run):
                self._spawn(self._release(run))

    async def _prepare(self, order: LeaseOrder) -> None:
        slow = _slow_parts(order)
        if slow:
            detail = slow[0]
            self._report(
                RunPreparing(
                    run=order.run, lease=order.lease, epoch=order.epoch, detail=f"getting {detail} ready"
                )
            )
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(self._say, order, line)

        try:
            pool = self._slow if slow else self._quick
            await self._in_thread(
                pool,
                lambda: self.work.prepare(order, say=say, is_wanted=lambda: self._is_to_run(order)),
            )
        except WorkFailed as error:
            self._feed(error.event(order.run))
        except Exception as error:
            self._feed(_unforeseen(order.run, error))
        else:
            self._feed(core.PrepareDone(run=order.run))

    async def _start(self, run: str, order: LeaseOrder) -> None:
        try:
            if self._care is not None:
                await self._care.before_run(order.devices)
            pool = self._slow if order.secrets else self._quick
            await self._in_thread(pool, lambda: self.work.start(order))
        except WorkFailed as error:
            self._feed(error.event(run))
        except (OSError, RuntimeError, LookupError) as error:
            failed = core.Failed(run=run, cause="sandbox", detail=f"the sandbox did not start: {error}")
            self._feed(failed)
        except Exception as error:
            self._feed(_unforeseen(run, error))
        else:
            self._observe(run)

    async def _stop(self, run: str, cause: str) -> None:
        log.info("run %s is stopped: %s", run, cause)
        grace = self.limits.stop_grace_seconds
        try:
            await self._in_thread(
                self._quick, lambda: self.sandbox.stop(run, reason=cause, grace_seconds=grace)
            )
        except (OSError, RuntimeError, LookupError) as error:
            log.warning("run %s could not be asked to stop: %s", run, error)
        self._observe(run)

    async def _drain_log(self, order: LeaseOrder) -> None:
        while self._pump(order):
            # With the journal full the log stays in its file, until reports are acknowledged.
            full = self.journal.unacknowledged() > self.limits.unacknowledged_max
            await asyncio.sleep(self.limits.tick_seconds if full else 0)
        self._feed(core.LogDrained(run=order.run))

    async def _collect(self, order: LeaseOrder) -> None:
        outputs: OutputBlob | None = None
        failure = None
        try:
            outputs = await self._in_thread(
                self._slow,
                lambda: self.work.collect(order, is_wanted=lambda: self._is_wanted(order)),
            )
        except WorkFailed as error:
            failure = error.detail
        except Exception as error:
            failure = _unforeseen(order.run, error).detail
        self._feed(core.OutputsPacked(run=order.run, outputs=outputs, failure=failure))

    def _is_wanted(self, order: LeaseOrder) -> bool:
        """Whether the exchange, as far as is known, still waits for this run's outputs."""
        desired = self._core.desired
        return not self._core.draining and (desired is None or order.run in desired)

    def _is_to_run(self, order: LeaseOrder) -> bool:
        """Whether the run is not stopped yet; without an exchange nobody stops it."""
        facts = self._core.runs.get(order.run)
        return facts is not None and facts.stop_cause is None

    async def _release(self, run: str) -> None:
        for _ in range(RELEASE_TRIES):
            try:
                await self._in_thread(self._quick, lambda: self.sandbox.release(run))
            except KeyError:
                break  # It never had a folder.
            except (OSError, RuntimeError) as error:
                log.warning("run %s can't be cleared away yet: %s", run, error)
                with contextlib.suppress(OSError, RuntimeError, LookupError):
                    self.sandbox.stop(run, reason="fenced", grace_seconds=0)
                await asyncio.sleep(RELEASE_RETRY_SECONDS)
            else:
                break
        else:
            log.error("run %s could not be cleared away; the next start of the agent tries again", run)
            return
        self.journal.release(run)
        self._tails.pop(run, None)
        self._meters.pop(run, None)
        self._feed(core.Released(run=run))

    # Looking at runs

    def _find_runs(self) -> None:
        """Take up what an earlier life left."""
        for run, epoch in self.journal.gone():
            self._feed(core.WasReleased(run=run, epoch=epoch))
        found = {status.run_id: status for status in self.sandbox.find()}
        for record in self.journal.records():
            run = record.order.run
            self._tails[run] = LogTail(prefix_bytes=record.prefix_bytes, offset=record.log_bytes)
            if record.meter is not None:
                self._meters[run] = msgspec.json.decode(record.meter, type=MeterState)
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
                self._spawn(self._clear_orphan(run))
                continue
            self.journal.adopt(order)
            self._tails[run] = LogTail()
            began = status.state != "prepared"
            self._feed(core.RunFound(order=order, status=status, start_asked=began))

    async def _clear_orphan(self, run: str) -> None:
        with contextlib.suppress(OSError, RuntimeError, LookupError):
            self.sandbox.stop(run, reason="fenced", grace_seconds=0)
        await self._release(run)

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
        self._feed(core.StatusChanged(status=status))
        if not facts.has_ended:
            self._follow_log(facts.order)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.tick_seconds)
            for run in list(self._core.runs):
                self._observe(run)
            self._feed(core.Tick(now=loop.time()))

    # Logs

    def _follow_log(self, order: LeaseOrder) -> None:
        """Report what is new: at once after a pause, else gathered for a moment."""
        tail = self._tails[order.run]
        facts = self._core.runs.get(order.run)
        if tail.timer is not None or facts is None or not facts.started_reported or facts.has_ended:
            return
        loop = asyncio.get_running_loop()
        wait = tail.pumped_at + self.limits.log_interval_seconds - loop.time()
        if wait > 0:
            tail.timer = loop.call_later(wait, self._follow_log_later, order)
        elif self._pump(order):
            tail.timer = loop.call_later(self.limits.log_interval_seconds, self._follow_log_later, order)

    def _follow_log_later(self, order: LeaseOrder) -> None:
        tail = self._tails.get(order.run)
        if tail is not None:
            tail.timer = None
            self._follow_log(order)

    def _pump(self, order: LeaseOrder) -> bool:
        """Report some of the log; whether there may be more."""
        tail = self._tails[order.run]
        if self.journal.unacknowledged() > self.limits.unacknowledged_max:
            return True
        for _ in range(CHUNKS_AT_ONCE):
            data = self.sandbox.read_log(order.run, tail.offset - tail.prefix_bytes, LOG_CHUNK_BYTES_MAX)
            if not data:
                return False
            tail.pumped_at = asyncio.get_running_loop().time()
            self._report_log(order, tail, data)
        return True

    def _say(self, order: LeaseOrder, line: str) -> None:
        """A line of the agent's own, before the job's first."""
        tail = self._tails.get(order.run)
        facts = self._core.runs.get(order.run)
        data = f"perak: {line}\n".encode()
        if tail is None or facts is None or facts.start_asked or facts.exit is not core.Exit.NONE:
            return
        if tail.prefix_bytes + len(data) > PREFIX_BYTES_MAX:
            return
        self.journal.add_prefix(order.run, len(data))
        tail.prefix_bytes += len(data)
        self._report_log(order, tail, data)

    def _report_log(self, order: LeaseOrder, tail: LogTail, data: bytes) -> None:
        self._report(
            LogChunk(run=order.run, lease=order.lease, epoch=order.epoch, offset=tail.offset, data=data)
        )
        tail.offset += len(data)

    # Reports

    def _report(self, body: Body) -> int:
        seq = self.journal.append(body, at=_now_ms())
        self._link.wake()
        return seq

    def _report_started(self, order: LeaseOrder, status: RunStatus) -> None:
        assert status.started_at is not None
        used = self.work.tiers.report(order.tier, default=self.tier) if self.work.tiers else self.tier
        self._report(
            RunStarted(
                run=order.run,
                lease=order.lease,
                epoch=order.epoch,
                started_at=_ms(status.started_at),
                tier=used.tier,
                enforced=used.enforced,
                unenforced=used.unenforced,
            )
        )
        self._meters[order.run] = state = self.meter.begin(order, at=status.started_at)
        self.journal.store_meter(order.run, msgspec.json.encode(state))

    def _report_metered(self, order: LeaseOrder) -> None:
        state = self._meters.get(order.run)
        try:
            alive = self.sandbox.status(order.run).state == "running"
            usage = self.sandbox.usage(order.run)
        except (KeyError, OSError):
            return
        if state is None or not alive:
            return
        now = time.time()
        energy = self.meter.sample(order, state, at=now, cpu_seconds=usage.cpu_seconds)
        self.journal.store_meter(order.run, msgspec.json.encode(state))
        self._report(
            Metered(
                run=order.run,
                lease=order.lease,
                epoch=order.epoch,
                until=_ms(now),
                cpu_seconds=state.cpu_seconds if usage.cpu_seconds is None else usage.cpu_seconds,
                memory_bytes=usage.memory_bytes,
                energy_joules=energy.joules,
                energy_method=energy.method,
                energy_hours=reported(state.hours, ended=False),
                energy_samples=energy.samples,
                energy_modelled=energy.modelled,
            )
        )

    def _network_use(self, order: LeaseOrder) -> NetworkUse | None:
        """What went through the run's proxy; its way out is closed with it."""
        if not order.network_allow:
            return None
        used = self.network.close(order.run)
        return NetworkUse(
            sent_bytes=used.sent_bytes, received_bytes=used.received_bytes, refused=used.refused
        )

    def _report_exit(self, last: core.ReportExit) -> None:
        order, status = last.order, last.status
        state = self._meters.get(order.run)
        ended_at = _ended_at(status, state)
        energy, cpu_seconds = NO_ENERGY, 0.0
        if status is not None and state is not None:
            energy = self.meter.sample(order, state, at=ended_at, cpu_seconds=status.cpu_seconds)
            cpu_seconds = state.cpu_seconds
        tail = self._tails.get(order.run) or LogTail()
        started_at = status.started_at if status is not None else None
        self._report(
            RunExited(
                run=order.run,
                lease=order.lease,
                epoch=order.epoch,
                started_at=None if started_at is None else _ms(started_at),
                ended_at=_ms(ended_at),
                exit_code=status.exit_code if status is not None else None,
                cause=last.cause,
                detail=last.detail,
                cpu_seconds=cpu_seconds,
                memory_peak_bytes=status.memory_peak_bytes if status is not None else None,
                energy_joules=energy.joules,
                energy_method=energy.method,
                energy_uncertainty_percent=energy.uncertainty_percent,
                log_bytes=tail.offset,
                outputs=last.outputs,
                network=self._network_use(order),
                energy_hours=reported(state.hours, ended=True) if state is not None else (),
                energy_samples=energy.samples,
                energy_modelled=energy.modelled,
            )
        )
        if self._care is not None and started_at is not None:
            self._care.after_run(order.lease, order.devices, faulty=last.cause == "device_fault")
        log.info("run %s ended: %s", order.run, last.cause)
        self._feed(core.ExitJournalled(run=order.run))

    def _report_refused(self, order: LeaseOrder, cause: str, detail: str) -> None:
        self._report(
            RunRefused(run=order.run, lease=order.lease, epoch=order.epoch, cause=cause, detail=detail)
        )
        log.warning("run %s refused, %s: %s", order.run, cause, detail)
        self._feed(core.ExitJournalled(run=order.run))

    def _busy_devices(self) -> set[str]:
        """Those that a run has, or is about to have."""
        return {
            uuid
            for facts in self._core.runs.values()
            if facts.exit is core.Exit.NONE and not facts.has_ended
            for uuid in facts.order.devices
        }

    # The offer

    def _post_offer(self, *, again: bool) -> None:
        """Post the offer if it changed; `again`: also if not, unless the same is still on its way."""
        try:
            ask = self.ask()
        except NothingToOffer as error:
            log.error("nothing is offered any more: %s", error)
            if self._offer is None:
                return
            ask = replace(self._offer[1], devices=(), price_cpu=None, price_gpu=None)
        except DomainError as error:
            log.error("the offer stays as it was: %s", error)
            if self._offer is None:
                return
            ask = self._offer[1]
        posted = self._offer
        if posted is not None and posted[1] == ask and (not again or posted[0] > self._acked):
            return
        self._post_checklists(ask, again=again)
        self._offer = (self._report(OfferPosted(offer=ask)), ask)

    def _post_checklists(self, ask: OfferAsk, *, again: bool) -> None:
        """Before the offer that names them; `again`: also those that were sent before."""
        found = self.work.tiers.checklists() if self.work.tiers is not None else {}
        for tier in ask.tiers:
            if tier.checklist in found and (again or tier.checklist not in self._checklists_posted):
                self._report(ChecklistPosted(checklist=found[tier.checklist]))
                self._checklists_posted.add(tier.checklist)

    async def _watch_offer(self) -> None:
        while True:
            tiers = self.work.tiers
            known = tiers is None or tiers.known()
            await asyncio.sleep(self.limits.offer_check_seconds if known else TIERS_CHECK_SECONDS)
            if self._offer is not None:
                self._post_offer(again=False)

    async def _watch_health(self) -> None:
        watch = HealthWatch(
            every_seconds=self.limits.health_report_seconds,
            every_seconds_hot=self.limits.health_report_hot_seconds,
        )
        faults = FaultWatch()
        loop = asyncio.get_running_loop()
        while True:
            told = await self._in_thread(self._quick, self.thermometer.faults)
            for fault in faults.take(told, now=loop.time()):
                log.warning("device %s: the driver told Xid %d", fault.device, fault.xid)
                self._report(fault)
                if self._care is not None:
                    self._care.faulted(fault.device)
            sensors = await self._in_thread(self._quick, self.thermometer.read)
            if (health := watch.take(sensors, now=loop.time())) is not None:
                self._report(health)
            await asyncio.sleep(self.limits.health_check_seconds)

    # Tasks and threads

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A task that failed is our bug, or a refusal: either ends the agent, never goes unseen."""
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _in_thread(self, pool: ThreadPoolExecutor, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def _slow_parts(order: LeaseOrder) -> list[str]:
    """What takes long to get ready, the longest first, in words."""
    parts = [
        (order.image, "the image"),
        (order.inputs, "the inputs"),
        (order.python_version, "the Python environment"),
        (order.workdir_digest, "the work folder"),
    ]
    return [words for part, words in parts if part]


def _unforeseen(run: str, error: Exception) -> core.Failed:
    """A bug of ours that one job met: it must not take the agent down, at every new start again."""
    log.error("run %s met a bug of the agent", run, exc_info=error)
    return core.Failed(run=run, cause="sandbox", detail=f"a bug of the agent: {error!r}")


def _found(record: RunRecord, status: RunStatus | None) -> core.RunFound:
    return core.RunFound(
        order=record.order,
        status=status,
        start_asked=record.start_asked,
        started_reported=record.started,
        stop_cause=record.stop_cause,
        exit_journalled=record.exit_journalled,
        exit_acknowledged=record.exit_acknowledged,
    )


def _ended_at(status: RunStatus | None, state: MeterState | None) -> float:
    """Unix seconds. A run whose end nobody saw ended, as far as can be proven, when it was last metered."""
    if status is None:
        return time.time()
    if status.ended_at is not None:
        return status.ended_at
    return state.at if state is not None else (status.started_at or time.time())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
