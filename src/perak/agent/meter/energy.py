"""The energy of one run, measured where there is a counter, else by the stated model.

A GPU belongs to one run alone: its counter's difference is the run's, before Volta its power integrated.
Processors are shared: of what RAPL counts, a run gets the share of its CPU time in the CPU time of all
processes, so idle power is carried by those who use the machine. What could not be read is modelled and
named. Every answer names method, uncertainty and the number of readings, and the state says in which hours
the energy was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perak.agent.meter.hours import add_energy
from perak.agent.meter.rapl import Rapl, Reading
from perak.domain.carbon.energy import cpu_energy, gpu_energy, total_energy
from perak.domain.footprint import Energy
from perak.wire.session import LeaseOrder

if TYPE_CHECKING:
    from perak.agent.meter.amd import Amd
    from perak.agent.probe.nvidia import Nvidia

RAPL_METHOD = "RAPL x share of CPU time"
RAPL_UNCERTAINTY_PERCENT = 25.0
"""Our estimate: the counter itself follows the plug closely (Khan et al. 2018, doi:10.1145/3177754), but
equal times of different loads don't use equal energy."""
COUNTER_METHOD = "NVML energy counter"
AMD_COUNTER_METHOD = "AMD energy counter"
COUNTER_UNCERTAINTY_PERCENT = 5.0
"""NVIDIA states +-5 percent for power readings (nvidia-smi manual); the counter rests on the same sensor. AMD
states nothing for its accumulator: the same is assumed."""
POWER_METHOD = "NVML power, integrated"
AMD_POWER_METHOD = "AMD power, integrated"
POWER_UNCERTAINTY_PERCENT = 15.0
"""Our estimate: sampled every few seconds, by sensors that on some generations see only part of the time
(arXiv:2312.02741)."""
FEW_SAMPLES = 12
FEW_SAMPLES_UNCERTAINTY_PERCENT = 30.0
"""Our estimate for less than a minute's samples: a job's beginning and end draw unlike its middle."""
GAP_SECONDS_MAX = 120.0
"""After a longer gap (the agent was away) a counter may have wrapped unseen, the smallest at 65 kJ: the model
fills it. A node that is cut off reads once a minute, and a little late."""
TDP_WATTS_UNKNOWN = 250.0
"""Where the driver tells no power limit: the usual limit of PCIe compute cards from Pascal to Ampere."""


class GpuState(msgspec.Struct):
    """One leased GPU: what was read of it so far, and the seconds in which nothing could be read.

    `counter_joules`: its counter at the start, or, with `last_joules`, only that it has one. `watts`: its
    power at the last sample, where power is integrated. `unread_seconds`: what the counter's next reading
    will still tell; `lost_seconds`: what nothing will.
    """

    counter_joules: float | None
    joules: float = 0.0
    measured_seconds: float = 0.0
    last_joules: float | None = None
    unread_seconds: float = 0.0
    lost_seconds: float = 0.0
    watts: float | None = None
    samples: int = 0

    @property
    def modelled_seconds(self) -> float:
        return self.unread_seconds + self.lost_seconds

    @property
    def is_modelled(self) -> bool:
        return self.modelled_seconds > 0 or not self.measured_seconds


class MeterState(msgspec.Struct):
    """What the meter of one run must remember, over restarts of the agent too. `at`: Unix seconds.

    `hours`: (hour since 1970, joules); they sum to `joules`.
    """

    started_at: float
    at: float
    cpu_seconds: float = 0.0
    rapl: Reading | None = None
    rapl_joules: float = 0.0
    modelled_seconds: float = 0.0
    modelled_cpu_seconds: float = 0.0
    gpus: dict[str, GpuState] = {}
    samples: int = 0
    joules: float = 0.0
    hours: list[tuple[int, float]] = []


class EnergyMeter:
    """Meters runs with the counters of this machine."""

    def __init__(self, *, rapl: Rapl | None, nvidia: Nvidia | None, amd: Amd | None = None) -> None:
        self._rapl = rapl
        self._nvidia = nvidia
        self._amd = amd

    def begin(self, order: LeaseOrder, *, at: float) -> MeterState:
        """The meter of a run that starts now."""
        gpus = {}
        for uuid in order.devices:
            counter = self._counter(uuid)
            gpus[uuid] = GpuState(counter_joules=counter, last_joules=counter, watts=self._watts(uuid))
        return MeterState(started_at=at, at=at, rapl=self._rapl.read() if self._rapl else None, gpus=gpus)

    def sample(self, order: LeaseOrder, state: MeterState, *, at: float, cpu_seconds: float | None) -> Energy:
        """Advance `state` to `at` and return the run's energy from its start.

        `cpu_seconds`: CPU time of the run from its start; None (unknown) counts as all that it leased.
        """
        seconds = max(0.0, at - state.at)
        if cpu_seconds is None:
            cpu_seconds = state.cpu_seconds + seconds * order.cpu_milli / 1000
        used = max(0.0, cpu_seconds - state.cpu_seconds)
        measured = self._sample_cpu(state, seconds, used)
        for uuid, gpu in state.gpus.items():
            measured = self._sample_gpu(uuid, gpu, seconds) or measured
        state.samples += measured
        energy = total_energy([*self._cpu_parts(order, state), *self._gpu_parts(state)])
        add_energy(
            state.hours, since=state.at, until=max(at, state.at), before=state.joules, now=energy.joules
        )
        state.joules = energy.joules
        state.at = max(at, state.at)
        state.cpu_seconds = max(cpu_seconds, state.cpu_seconds)
        return Energy(
            joules=energy.joules,
            method=energy.method,
            uncertainty_percent=energy.uncertainty_percent,
            samples=state.samples,
            modelled=tuple(self._modelled(state)),
        )

    def _sample_cpu(self, state: MeterState, seconds: float, used: float) -> bool:
        """Whether the processors' counters were read."""
        reading = self._rapl.read() if self._rapl else None
        measured = reading is not None and state.rapl is not None and seconds <= GAP_SECONDS_MAX
        if reading is None or state.rapl is None or not measured:
            state.modelled_seconds += seconds
            state.modelled_cpu_seconds += used
        else:
            assert self._rapl is not None
            busy = reading.busy_seconds - state.rapl.busy_seconds
            # /proc/stat counts in ticks: a short run may have used more than was seen.
            share = min(1.0, used / max(busy, used)) if used > 0 else 0.0
            state.rapl_joules += self._rapl.joules_between(state.rapl, reading) * share
        state.rapl = reading
        return measured

    def _sample_gpu(self, uuid: str, gpu: GpuState, seconds: float) -> bool:
        """Whether the card could be read."""
        if gpu.counter_joules is not None:
            read = self._sample_counter(uuid, gpu, seconds)
        else:
            read = self._sample_power(uuid, gpu, seconds)
        gpu.samples += read
        return read

    def _sample_counter(self, uuid: str, gpu: GpuState, seconds: float) -> bool:
        """A counter goes on while nobody reads it; one that began anew, with its driver, has lost a part."""
        now = self._counter(uuid)
        assert gpu.counter_joules is not None
        before = gpu.counter_joules + gpu.joules if gpu.last_joules is None else gpu.last_joules
        gpu.unread_seconds += seconds
        if now is None:
            return False
        gpu.last_joules = now
        if now < before:
            gpu.lost_seconds, gpu.unread_seconds = gpu.lost_seconds + gpu.unread_seconds, 0.0
            return False
        gpu.joules += now - before
        gpu.measured_seconds += gpu.unread_seconds
        gpu.unread_seconds = 0.0
        return True

    def _sample_power(self, uuid: str, gpu: GpuState, seconds: float) -> bool:
        """By the trapezoidal rule between two samples."""
        before, gpu.watts = gpu.watts, self._watts(uuid)
        if gpu.watts is None or seconds > GAP_SECONDS_MAX:
            gpu.lost_seconds += seconds
            return False
        gpu.joules += (gpu.watts if before is None else (before + gpu.watts) / 2) * seconds
        gpu.measured_seconds += seconds
        return True

    def _cpu_parts(self, order: LeaseOrder, state: MeterState) -> Sequence[Energy]:
        parts = []
        if (state.rapl_joules or not state.modelled_seconds) and self._rapl is not None:
            parts.append(_energy(state.rapl_joules, RAPL_METHOD, RAPL_UNCERTAINTY_PERCENT))
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
        for uuid, gpu in state.gpus.items():
            if gpu.measured_seconds:
                parts.append(_energy(gpu.joules, *self._method(uuid, gpu)))
            if gpu.is_modelled:
                parts.append(gpu_energy(tdp_watts=self._tdp_watts(uuid), seconds=gpu.modelled_seconds))
        return parts

    def _method(self, uuid: str, gpu: GpuState) -> tuple[str, float]:
        amd = not self._is_nvidia(uuid) and self._amd is not None
        if gpu.counter_joules is not None:
            return AMD_COUNTER_METHOD if amd else COUNTER_METHOD, COUNTER_UNCERTAINTY_PERCENT
        few = gpu.samples < FEW_SAMPLES
        uncertainty = FEW_SAMPLES_UNCERTAINTY_PERCENT if few else POWER_UNCERTAINTY_PERCENT
        return AMD_POWER_METHOD if amd else POWER_METHOD, uncertainty

    def _modelled(self, state: MeterState) -> Sequence[str]:
        """The parts that were modelled, wholly or for some of the time."""
        cpu = ("cpu",) if state.modelled_seconds or self._rapl is None else ()
        gpus = [uuid for uuid, gpu in state.gpus.items() if gpu.is_modelled]
        return (*cpu, *gpus)

    def _is_nvidia(self, uuid: str) -> bool:
        return self._nvidia is not None and any(d.device.uuid == uuid for d in self._nvidia.devices)

    def _counter(self, uuid: str) -> float | None:
        return self._read("energy_joules", uuid)

    def _watts(self, uuid: str) -> float | None:
        return self._read("power_watts", uuid)

    def _read(self, what: str, uuid: str) -> float | None:
        for counters in (self._nvidia, self._amd):
            value: float | None = None if counters is None else getattr(counters, what)(uuid)
            if value is not None:
                return value
        return None

    def _tdp_watts(self, uuid: str) -> float:
        devices = self._nvidia.devices if self._nvidia else ()
        limits = [each.device.power_limit_watts for each in devices if each.device.uuid == uuid]
        return (limits[0] if limits else None) or TDP_WATTS_UNKNOWN


def _energy(joules: float, method: str, uncertainty_percent: float) -> Energy:
    return Energy(joules=joules, method=method, uncertainty_percent=uncertainty_percent)
