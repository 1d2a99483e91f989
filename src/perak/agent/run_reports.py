"""What a node reports of its runs besides their logs, with the energy that each has used so far."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from perak.agent.events import Drawn
from perak.agent.instructions import ReportExit
from perak.agent.journal import Journal
from perak.agent.meter.energy import EnergyMeter, MeterState
from perak.agent.meter.hours import reported
from perak.agent.network.proxy import NetworkProxy
from perak.agent.probe.tiers import Tiers
from perak.agent.sandbox import RunStatus, Sandbox, TierReport
from perak.domain.footprint import Energy
from perak.domain.report import (
    Body,
    Metered,
    NetworkUse,
    RunExited,
    RunPreparing,
    RunRefused,
    RunStarted,
)
from perak.wire.session import LeaseOrder

log = logging.getLogger(__name__)

NO_ENERGY = Energy(joules=0.0, method="none: the run never started", uncertainty_percent=0.0)


@dataclass(slots=True, kw_only=True)
class RunReports:
    """The reports of one node's runs, and the meter of each."""

    report: Callable[[Body], object]
    journal: Journal
    sandbox: Sandbox
    tier: TierReport
    """The default one."""
    tiers: Tiers | None
    meter: EnergyMeter
    network: NetworkProxy
    _meters: dict[str, MeterState] = field(default_factory=dict)

    def take_up(self, run: str, meter: bytes | None) -> None:
        """A run of an earlier life of the agent; `meter`: what its journal holds."""
        if meter is not None:
            self._meters[run] = msgspec.json.decode(meter, type=MeterState)

    def forget(self, run: str) -> None:
        self._meters.pop(run, None)

    def preparing(self, order: LeaseOrder, part: str) -> None:
        self.report(
            RunPreparing(
                run=order.run, lease=order.lease, epoch=order.epoch, detail=f"getting {part} ready"
            )
        )  # fmt: skip

    def started(self, order: LeaseOrder, status: RunStatus) -> None:
        assert status.started_at is not None
        used = self.tiers.report(order.tier, default=self.tier) if self.tiers else self.tier
        self.report(
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

    def metered(self, order: LeaseOrder) -> Drawn | None:
        """Evidence of a run that is alive, and what it has drawn; of another one there is none."""
        state = self._meters.get(order.run)
        try:
            alive = self.sandbox.status(order.run).state == "running"
            usage = self.sandbox.usage(order.run)
        except (KeyError, OSError):
            return None
        if state is None or not alive:
            return None
        now = time.time()
        energy = self.meter.sample(order, state, at=now, cpu_seconds=usage.cpu_seconds)
        self.journal.store_meter(order.run, msgspec.json.encode(state))
        self.report(
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
        return Drawn(run=order.run, joules=energy.joules, at=now)

    def exited(self, last: ReportExit, *, log_bytes: int) -> None:
        """The last report of a run; `log_bytes` were reported of its log."""
        order, status = last.order, last.status
        state = self._meters.get(order.run)
        ended_at = _ended_at(status, state)
        if last.failed_at is not None and status is not None:
            ended_at = max(status.started_at or 0.0, min(ended_at, last.failed_at))
        energy, cpu_seconds = NO_ENERGY, 0.0
        if status is not None and state is not None:
            energy = self.meter.sample(order, state, at=ended_at, cpu_seconds=status.cpu_seconds)
            cpu_seconds = state.cpu_seconds
        started_at = status.started_at if status is not None else None
        self.report(
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
                log_bytes=log_bytes,
                outputs=last.outputs,
                network=self._network_use(order),
                energy_hours=reported(state.hours, ended=True) if state is not None else (),
                energy_samples=energy.samples,
                energy_modelled=energy.modelled,
            )
        )
        log.info("run %s ended: %s", order.run, last.cause)

    def _network_use(self, order: LeaseOrder) -> NetworkUse | None:
        """What went through the run's proxy; its way out is closed with it."""
        if not order.network_allow:
            return None
        used = self.network.close(order.run)
        return NetworkUse(
            sent_bytes=used.sent_bytes, received_bytes=used.received_bytes, refused=used.refused
        )

    def refused(self, order: LeaseOrder, cause: str, detail: str) -> None:
        self.report(
            RunRefused(run=order.run, lease=order.lease, epoch=order.epoch, cause=cause, detail=detail)
        )
        log.warning("run %s refused, %s: %s", order.run, cause, detail)


def _ended_at(status: RunStatus | None, state: MeterState | None) -> float:
    """Unix seconds. A run whose end nobody saw ended, as far as can be proven, when it was last metered."""
    if status is None:
        return time.time()
    if status.ended_at is not None:
        return status.ended_at
    return state.at if state is not None else (status.started_at or time.time())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
