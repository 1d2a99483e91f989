"""Energy of a run: measured where it can be, and never from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from agent_samples import order

from perak.agent.meter.energy import COUNTER_METHOD, POWER_METHOD, RAPL_METHOD, EnergyMeter, MeterState
from perak.agent.meter.rapl import Rapl
from perak.domain.carbon.energy import cpu_energy

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
