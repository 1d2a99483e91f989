"""Energy of a run: measured where it can be, and never from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from agent_samples import order

from perak.agent.meter.amd import Amd
from perak.agent.meter.energy import (
    AMD_COUNTER_METHOD,
    AMD_POWER_METHOD,
    COUNTER_METHOD,
    POWER_METHOD,
    RAPL_METHOD,
    EnergyMeter,
    MeterState,
)
from perak.agent.meter.rapl import Rapl
from perak.agent.settings import Limits
from perak.domain.carbon.energy import cpu_energy, gpu_energy
from perak.domain.footprint import Energy

RANGE = 1_000_000_000


class Machine:
    """A powercap tree and a /proc/stat in a folder."""

    def __init__(self, folder: Path) -> None:
        self.powercap, self.stat = folder / "powercap", folder / "stat"
        zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:0:1": "core"}
        for zone, name in zones.items():
            (self.powercap / zone).mkdir(parents=True)
            (self.powercap / zone / "name").write_text(f"{name}\n")
            (self.powercap / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.set(package=0, dram=0, core=0, busy_seconds=0)

    def set(self, *, busy_seconds: float, **joules: float) -> None:
        names = {"package": "intel-rapl:0", "dram": "intel-rapl:0:0", "core": "intel-rapl:0:1"}
        for name, value in joules.items():
            (self.powercap / names[name] / "energy_uj").write_text(f"{int(value * 1e6) % RANGE}\n")
        ticks = int(busy_seconds * os.sysconf("SC_CLK_TCK"))
        self.stat.write_text(f"cpu  {ticks} 0 0 999999 0 0 0 0 0 0\ncpu0 1 1\n")

    def rapl(self) -> Rapl:
        found = Rapl.open(self.powercap, proc_stat=self.stat)
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_run_gets_its_share_of_packages_and_memory(machine: Machine) -> None:
    meter = EnergyMeter(rapl=machine.rapl(), nvidia=None)
    state = meter.begin(order(), at=0)
    machine.set(package=100, dram=20, core=70, busy_seconds=10)
    energy = meter.sample(order(), state, at=10, cpu_seconds=5)
    assert energy.joules == pytest.approx(60), "half of package and dram; cores are in the package"
    assert energy.method == RAPL_METHOD


def test_a_counter_that_wraps_goes_on(machine: Machine) -> None:
    machine.set(package=990, dram=0, core=0, busy_seconds=0)
    meter = EnergyMeter(rapl=machine.rapl(), nvidia=None)
    state = meter.begin(order(), at=0)
    machine.set(package=1010, busy_seconds=1)
    assert meter.sample(order(), state, at=1, cpu_seconds=1).joules == pytest.approx(20)


def test_a_node_that_is_cut_off_reads_late_and_still_measures(machine: Machine) -> None:
    meter = EnergyMeter(rapl=machine.rapl(), nvidia=None)
    state = meter.begin(order(), at=0)
    machine.set(package=100, dram=0, core=0, busy_seconds=61)
    energy = meter.sample(order(), state, at=Limits().meter_interval_offline_seconds + 1.5, cpu_seconds=61)
    assert energy.joules == pytest.approx(100)
    assert energy.modelled == ()


def test_a_gap_in_which_the_counter_may_have_wrapped_is_modelled(machine: Machine) -> None:
    meter = EnergyMeter(rapl=machine.rapl(), nvidia=None)
    state = meter.begin(order(), at=0)
    machine.set(package=10, busy_seconds=5)
    meter.sample(order(), state, at=5, cpu_seconds=5)
    state = msgspec.json.decode(msgspec.json.encode(state), type=MeterState)
    machine.set(package=900, busy_seconds=500)
    energy = meter.sample(order(), state, at=605, cpu_seconds=105)
    one = order()
    gap = cpu_energy(cpu_seconds=100, seconds=600, cpu_milli=one.cpu_milli, memory_bytes=one.memory_bytes)
    assert energy.joules == pytest.approx(10 + gap.joules)
    assert RAPL_METHOD in energy.method
    assert "model" in energy.method


def test_without_counters_the_model_is_named_with_its_uncertainty() -> None:
    meter = EnergyMeter(rapl=None, nvidia=None)
    one = order()
    state = meter.begin(one, at=0)
    meter.sample(one, state, at=5, cpu_seconds=1)
    energy = meter.sample(one, state, at=10, cpu_seconds=2)
    whole = cpu_energy(cpu_seconds=2, seconds=10, cpu_milli=one.cpu_milli, memory_bytes=one.memory_bytes)
    assert energy.joules == pytest.approx(whole.joules), "sampling doesn't change the sum"
    assert energy.uncertainty_percent == whole.uncertainty_percent


def test_no_counters_no_rapl(tmp_path: Path) -> None:
    assert Rapl.open(tmp_path / "missing") is None


def nvidia(**readings: Any) -> Any:
    """A stand-in for the probe, at its own interface."""
    device = SimpleNamespace(uuid="GPU-1", power_limit_watts=200.0)
    return SimpleNamespace(
        devices=(SimpleNamespace(device=device),),
        energy_joules=lambda uuid: readings.get("joules"),
        power_watts=lambda uuid: readings.get("watts"),
    )


def test_a_gpu_counter_counts_from_the_start_of_the_run() -> None:
    one = order(devices=("GPU-1",))
    readings: dict[str, Any] = {"joules": 5000.0}
    probe = nvidia()
    probe.energy_joules = lambda uuid: readings["joules"]
    meter = EnergyMeter(rapl=None, nvidia=probe)
    state = meter.begin(one, at=0)
    before = meter.sample(one, state, at=0, cpu_seconds=0).joules
    readings["joules"] = 6500.0
    energy = meter.sample(one, state, at=10, cpu_seconds=0)
    cpu = cpu_energy(cpu_seconds=0, seconds=10, cpu_milli=one.cpu_milli, memory_bytes=one.memory_bytes)
    assert before == 0
    assert energy.joules == pytest.approx(1500 + cpu.joules)
    assert COUNTER_METHOD in energy.method


def test_before_volta_power_is_integrated() -> None:
    one = order(devices=("GPU-1",))
    meter = EnergyMeter(rapl=None, nvidia=nvidia(watts=150.0))
    state = meter.begin(one, at=0)
    energy = meter.sample(one, state, at=10, cpu_seconds=0)
    assert energy.joules > 1500
    assert POWER_METHOD in energy.method
    assert "TDP" not in energy.method


def test_a_gpu_without_any_reading_is_modelled_from_its_power_limit() -> None:
    one = order(devices=("GPU-1",))
    meter = EnergyMeter(rapl=None, nvidia=nvidia())
    state = meter.begin(one, at=0)
    assert "TDP 200 W" in meter.sample(one, state, at=10, cpu_seconds=0).method


def gpu_meter(readings: dict[str, Any], *, name: str = "joules") -> EnergyMeter:
    probe = nvidia()
    reading = {"joules": "energy_joules", "watts": "power_watts"}[name]
    setattr(probe, reading, lambda uuid: readings[name])
    return EnergyMeter(rapl=None, nvidia=probe)


def of_the_gpu(energy: Energy, *, seconds: float) -> float:
    one = order(devices=("GPU-1",))
    cpu = cpu_energy(cpu_seconds=0, seconds=seconds, cpu_milli=one.cpu_milli, memory_bytes=one.memory_bytes)
    return energy.joules - cpu.joules


def test_a_counter_tells_of_the_time_when_it_could_not_be_read() -> None:
    one, readings = order(devices=("GPU-1",)), {"joules": 1000.0}
    meter = gpu_meter(readings)
    state = meter.begin(one, at=0)
    readings["joules"] = None
    blind = meter.sample(one, state, at=10, cpu_seconds=0)
    assert "GPU-1" in blind.modelled
    assert of_the_gpu(blind, seconds=10) > 0, "what can't be measured is never zero"
    readings["joules"] = 1700.0
    seen = meter.sample(one, state, at=20, cpu_seconds=0)
    assert of_the_gpu(seen, seconds=20) == pytest.approx(700)
    assert seen.modelled == ("cpu",)
    assert sum(joules for _, joules in state.hours) == pytest.approx(seen.joules)


def test_a_counter_that_began_anew_leaves_a_part_to_the_model() -> None:
    one, readings = order(devices=("GPU-1",)), {"joules": 1000.0}
    meter = gpu_meter(readings)
    state = meter.begin(one, at=0)
    readings["joules"] = 5.0
    meter.sample(one, state, at=10, cpu_seconds=0)
    readings["joules"] = 105.0
    energy = meter.sample(one, state, at=20, cpu_seconds=0)
    model = gpu_energy(tdp_watts=200.0, seconds=10)
    assert of_the_gpu(energy, seconds=20) == pytest.approx(100 + model.joules)
    assert "GPU-1" in energy.modelled


def test_power_is_integrated_by_the_trapezoidal_rule_and_few_samples_are_unsure() -> None:
    one, readings = order(devices=("GPU-1",)), {"watts": 100.0}
    meter = gpu_meter(readings, name="watts")
    state = meter.begin(one, at=0)
    readings["watts"] = 200.0
    first = meter.sample(one, state, at=5, cpu_seconds=0)
    assert of_the_gpu(first, seconds=5) == pytest.approx(150 * 5)
    for second in range(10, 70, 5):
        last = meter.sample(one, state, at=second, cpu_seconds=0)
    assert last.samples == 13
    assert last.uncertainty_percent < first.uncertainty_percent


def test_energy_is_noted_in_the_hours_in_which_it_was_drawn() -> None:
    one, readings = order(devices=("GPU-1",)), {"joules": 0.0}
    meter = gpu_meter(readings)
    state = meter.begin(one, at=3590)
    readings["joules"] = 1000.0
    energy = meter.sample(one, state, at=3610, cpu_seconds=0)
    readings["joules"] = 4000.0
    energy = meter.sample(one, state, at=3620, cpu_seconds=0)
    (first, before), (second, after) = state.hours
    assert (first, second) == (0, 1)
    assert before + after == pytest.approx(energy.joules)
    assert after - before == pytest.approx(3000, rel=0.01)


def test_a_meter_of_an_older_agent_goes_on() -> None:
    """The agent was updated while a run went on: what it had written is read."""
    one, readings = order(devices=("GPU-1",)), {"joules": 1800.0}
    old = (
        b'{"started_at":0,"at":10,"gpus":{"GPU-1":{"counter_joules":1000.0,"joules":500.0,'
        b'"measured_seconds":0.0}},"modelled_seconds":10}'
    )
    state = msgspec.json.decode(old, type=MeterState)
    energy = gpu_meter(readings).sample(one, state, at=20, cpu_seconds=0)
    assert of_the_gpu(energy, seconds=20) == pytest.approx(800)


class FakeSmi:
    """amdsmi as its documentation has it: a count and its resolution in microjoules."""

    class AmdSmiException(Exception): ...

    count: int | None = 0

    def amdsmi_get_processor_handles(self) -> list[str]:
        return ["handle"]

    def amdsmi_get_gpu_device_uuid(self, handle: str) -> str:
        return "GPU-1"

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, float]:
        if self.count is None:
            raise self.AmdSmiException("not supported")
        return {"energy_accumulator": self.count, "counter_resolution": 15.3, "timestamp": 1}

    def amdsmi_get_power_info(self, handle: str) -> dict[str, object]:
        return {"current_socket_power": "N/A", "average_socket_power": 90}


def test_amds_accumulator_counts_in_its_own_resolution() -> None:
    smi, one = FakeSmi(), order(devices=("GPU-1",))
    meter = EnergyMeter(rapl=None, nvidia=None, amd=Amd(smi))
    state = meter.begin(one, at=0)
    smi.count = 100_000_000
    energy = meter.sample(one, state, at=10, cpu_seconds=0)
    assert of_the_gpu(energy, seconds=10) == pytest.approx(1530)
    assert AMD_COUNTER_METHOD in energy.method


def test_amds_power_is_integrated_where_there_is_no_accumulator() -> None:
    smi, one = FakeSmi(), order(devices=("GPU-1",))
    smi.count = None
    meter = EnergyMeter(rapl=None, nvidia=None, amd=Amd(smi))
    state = meter.begin(one, at=0)
    energy = meter.sample(one, state, at=10, cpu_seconds=0)
    assert of_the_gpu(energy, seconds=10) == pytest.approx(900)
    assert AMD_POWER_METHOD in energy.method


def test_without_amds_library_there_are_no_counters_of_it() -> None:
    assert Amd.open() is None
