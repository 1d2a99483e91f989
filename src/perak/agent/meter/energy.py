"""The energy of one run, measured where there is a counter, else by the stated model.

A GPU belongs to one run alone: its NVML counter's difference is the run's, before Volta its power integrated.
Processors are shared: of what RAPL counts, a run gets the share of its CPU time in the CPU time of all
processes, so idle power is carried by those who use the machine. Every answer names method and uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perak.agent.meter.rapl import Rapl, Reading
from perak.domain.carbon.energy import cpu_energy, gpu_energy, total_energy
from perak.domain.footprint import Energy
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.probe.nvidia import Nvidia

RAPL_METHOD = "RAPL x share of CPU time"
RAPL_UNCERTAINTY_PERCENT = 25.0
"""Our estimate: the counter itself follows the plug closely (Khan et al. 2018, doi:10.1145/3177754), but
equal times of different loads don't use equal energy."""
COUNTER_METHOD = "NVML energy counter"
COUNTER_UNCERTAINTY_PERCENT = 5.0
"""NVIDIA states +-5 percent for power readings (nvidia-smi manual); the counter rests on the same sensor."""
POWER_METHOD = "NVML power, integrated"
POWER_UNCERTAINTY_PERCENT = 15.0
"""Our estimate: sampled every few seconds, by sensors that on some generations see only part of the time
(arXiv:2312.02741)."""
GAP_SECONDS_MAX = 60.0
"""After a longer gap (the agent was away) a counter may have wrapped unseen: the model fills it."""
TDP_WATTS_UNKNOWN = 250.0
"""Where the driver tells no power limit: the usual limit of PCIe compute cards from Pascal to Ampere."""


class GpuState(msgspec.Struct):
    """One leased GPU: its counter at the start if it has one, else what was integrated so far."""

    counter_joules: float | None
    joules: float = 0.0
    measured_seconds: float = 0.0


class MeterState(msgspec.Struct):
    """What the meter of one run must remember, over restarts of the agent too. `at`: Unix seconds."""

    started_at: float
    at: float
    cpu_seconds: float = 0.0
    rapl: Reading | None = None
    rapl_joules: float = 0.0
    modelled_seconds: float = 0.0
    modelled_cpu_seconds: float = 0.0
    gpus: dict[str, GpuState] = {}


class EnergyMeter:
    """Meters runs with the counters of this machine."""

    def __init__(self, *, rapl: Rapl | None, nvidia: Nvidia | None) -> None:
        self._rapl = rapl
        self._nvidia = nvidia

    def begin(self, order: LeaseOrder, *, at: float) -> MeterState:
        """The meter of a run that starts now."""
        return MeterState(
            started_at=at,
            at=at,
            rapl=self._rapl.read() if self._rapl else None,
            gpus={uuid: GpuState(counter_joules=self._counter(uuid)) for uuid in order.devices},
        )

    def sample(self, order: LeaseOrder, state: MeterState, *, at: float, cpu_seconds: float | None) -> Energy:
        """Advance `state` to `at` and return the run's energy from its start.

        `cpu_seconds`: CPU time of the run from its start; None (unknown) counts as all that it leased.
        """
        seconds = max(0.0, at - state.at)
        if cpu_seconds is None:
            cpu_seconds = state.cpu_seconds + seconds * order.cpu_milli / 1000
        used = max(0.0, cpu_seconds - state.cpu_seconds)
        self._sample_cpu(state, seconds, used)
        for uuid, gpu in state.gpus.items():
            self._sample_gpu(uuid, gpu, seconds)
        state.at = max(at, state.at)
        state.cpu_seconds = max(cpu_seconds, state.cpu_seconds)
        return total_energy([*self._cpu_parts(order, state), *self._gpu_parts(state)])

    def _sample_cpu(self, state: MeterState, seconds: float, used: float) -> None:
        reading = self._rapl.read() if self._rapl else None
        if reading is None or state.rapl is None or seconds > GAP_SECONDS_MAX:
            state.modelled_seconds += seconds
            state.modelled_cpu_seconds += used
        else:
            assert self._rapl is not None
            busy = reading.busy_seconds - state.rapl.busy_seconds
            # /proc/stat counts in ticks: a short run may have used more than was seen.
            share = min(1.0, used / max(busy, used)) if used > 0 else 0.0
            state.rapl_joules += self._rapl.joules_between(state.rapl, reading) * share
        state.rapl = reading

    def _sample_gpu(self, uuid: str, gpu: GpuState, seconds: float) -> None:
        if gpu.counter_joules is not None:
            now = self._counter(uuid)
            if now is not None and now >= gpu.counter_joules:
                gpu.joules = now - gpu.counter_joules
            return
        watts = self._nvidia.power_watts(uuid) if self._nvidia else None
        if watts is not None and seconds <= GAP_SECONDS_MAX:
            gpu.joules += watts * seconds
            gpu.measured_seconds += seconds

    def _cpu_parts(self, order: LeaseOrder, state: MeterState) -> Sequence[Energy]:
        parts = []
        if (state.rapl_joules or not state.modelled_seconds) and self._rapl is not None:
            parts.append(
                Energy(
                    joules=state.rapl_joules,
                    method=RAPL_METHOD,
                    uncertainty_percent=RAPL_UNCERTAINTY_PERCENT,
                )
            )
        if state.modelled_seconds or not parts:
            parts.append(
                cpu_energy(
                    cpu_seconds=state.modelled_cpu_seconds,
                    seconds=state.modelled_seconds,
                    cpu_milli=order.cpu_milli,
                    memory_bytes=order.memory_bytes,
                )
            )
        return parts

    def _gpu_parts(self, state: MeterState) -> Sequence[Energy]:
        parts = []
        seconds = state.at - state.started_at
        for uuid, gpu in state.gpus.items():
            if gpu.counter_joules is not None:
                parts.append(_energy(gpu.joules, COUNTER_METHOD, COUNTER_UNCERTAINTY_PERCENT))
                continue
            if gpu.measured_seconds:
                parts.append(_energy(gpu.joules, POWER_METHOD, POWER_UNCERTAINTY_PERCENT))
            unseen = seconds - gpu.measured_seconds
            if unseen > 0 or not gpu.measured_seconds:
                parts.append(gpu_energy(tdp_watts=self._tdp_watts(uuid), seconds=max(0.0, unseen)))
        return parts

    def _counter(self, uuid: str) -> float | None:
        return self._nvidia.energy_joules(uuid) if self._nvidia else None

    def _tdp_watts(self, uuid: str) -> float:
        devices = self._nvidia.devices if self._nvidia else ()
        limits = [each.device.power_limit_watts for each in devices if each.device.uuid == uuid]
        return (limits[0] if limits else None) or TDP_WATTS_UNKNOWN


def _energy(joules: float, method: str, uncertainty_percent: float) -> Energy:
    return Energy(joules=joules, method=method, uncertainty_percent=uncertainty_percent)
