"""What the agent says of its machine. NVML itself is replaced by a stand-in; no GPU is needed here."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perak.agent.probe.ask import NothingToOffer, build_ask, unpriced
from perak.agent.probe.driver import DeviceAccess
from perak.agent.probe.machine import Machine, probe_machine
from perak.agent.probe.nvidia import Nvidia
from perak.agent.provider import Provider
from perak.agent.sandbox import TierReport

GIB = 2**30
MACHINE = Machine(cpu_model="A", cpu_milli=8000, memory_bytes=16 * GIB, disk_bytes=100 * 10**9)
TIER = TierReport(
    tier="bubblewrap", available=True, enforced=("network",), unenforced={"cpu": "no"}, runtime="b"
)


def tree(folder: Path, files: dict[str, str]) -> Path:
    base = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Best  CPU @ 3GHz\n",
        "proc/meminfo": "MemTotal:       16777216 kB\n",
        "proc/self/cgroup": "0::/system.slice/perak.service\n",
    }
    for name, text in (base | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_machine_without_limits(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path, root=tree(tmp_path, {}))
    assert machine.cpu_model == "Best CPU @ 3GHz"
    assert machine.cpu_milli == 1000 * len(os.sched_getaffinity(0))
    assert machine.memory_bytes == 16 * GIB
    assert machine.disk_bytes > 0


def test_limits_of_any_control_group_above_count(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/system.slice/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/system.slice/perak.service/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/perak.service/cpu.max": "50000 100000\n",
    }
    machine = probe_machine(tmp_path, root=tree(tmp_path, files))
    assert machine.memory_bytes == 2 * GIB
    assert machine.cpu_milli == 500


def test_control_groups_of_the_first_version(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "25000\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
    }
    machine = probe_machine(tmp_path, root=tree(tmp_path, files))
    assert machine.memory_bytes == GIB
    assert machine.cpu_milli == 250


class FakeNvml:
    """A stand-in for pynvml: two devices, and whatever is in `broken` fails."""

    class NVMLError(Exception):
        pass

    def __init__(self, *broken: str) -> None:
        self.broken = broken

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlSystemGetCudaDriverVersion": lambda: 13_010,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=16 * GIB),
            "nvmlDeviceGetName": lambda handle: b"Tesla V100",
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (7, 0),
            "nvmlDeviceGetPowerManagementLimit": lambda handle: 250_000,
            "nvmlDeviceGetMinorNumber": lambda handle: handle,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5_000,
            "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:3B:00.0"),
            "nvmlDeviceGetPowerUsage": lambda handle: 120_000,
        }

        def call(*args: Any) -> Any:
            if name in self.broken:
                raise self.NVMLError(name)
            return answers[name](*args)

        return call


def test_devices_of_a_healthy_driver() -> None:
    first, second = Nvidia(FakeNvml()).devices
    assert (first.device.model, first.device.uuid, first.minor) == ("Tesla V100", "GPU-0", 0)
    assert (first.device.memory_bytes, first.device.compute_capability) == (16 * GIB, "7.0")
    assert (first.device.power_limit_watts, first.device.driver) == (250, "580.1")
    assert first.device.cuda == "13.1"
    assert second.device.index == 1


@pytest.mark.parametrize(
    "broken", ["nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetName"]
)
def test_a_reading_that_fails_does_not_hide_the_device(broken: str) -> None:
    assert len(Nvidia(FakeNvml(broken)).devices) == 2


@pytest.mark.parametrize("broken", ["nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCount"])
def test_a_device_that_can_not_be_named_or_measured_is_not_offered(broken: str) -> None:
    assert Nvidia(FakeNvml(broken)).devices == ()


def test_a_counter_that_a_device_lacks_is_missing_not_zero() -> None:
    probe = Nvidia(FakeNvml("nvmlDeviceGetTotalEnergyConsumption"))
    assert probe.energy_joules("GPU-0") is None
    assert Nvidia(FakeNvml()).energy_joules("GPU-0") == 5
    assert Nvidia(FakeNvml()).energy_joules("GPU-9") is None


def test_a_lease_on_a_device_that_fell_off_the_bus_is_an_error() -> None:
    probe = Nvidia(FakeNvml())
    access = probe.access(("GPU-1",))
    assert access.nodes[0] == "/dev/nvidia1"
    assert access.env["CUDA_VISIBLE_DEVICES"] == access.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-1"
    assert probe.access(()) == DeviceAccess()
    with pytest.raises(LookupError, match="GPU-9"):
        probe.access(("GPU-9",))


def test_the_offer_is_the_machine_less_what_is_kept_back() -> None:
    provider = Provider(
        price_cpu=20_000, reserve_cpu_milli=1000, reserve_memory_bytes=GIB, reserve_disk_bytes=10**9
    )
    ask = build_ask(MACHINE, provider, devices=(), tier=TIER, pythons=("3.11",))
    assert (ask.cpu_milli, ask.memory_bytes, ask.disk_bytes) == (7000, 15 * GIB, 99 * 10**9)
    assert (ask.price_cpu, ask.price_gpu, ask.pythons) == (20_000, None, ("3.11",))
    assert (ask.enforced, ask.unenforced) == (("network",), {"cpu": "no"})


def test_what_has_no_price_is_not_offered_and_that_is_said() -> None:
    devices = [each.device for each in Nvidia(FakeNvml()).devices]
    ask = build_ask(MACHINE, Provider(price_cpu=1), devices=devices, tier=TIER, pythons=())
    assert ask.devices == ()
    assert "--price-gpu" in unpriced(Provider(price_cpu=1), devices)[0]
    with pytest.raises(NothingToOffer, match="--price-cpu"):
        build_ask(MACHINE, Provider(), devices=devices, tier=TIER, pythons=())
    with pytest.raises(NothingToOffer, match="--price-cpu"):
        build_ask(MACHINE, Provider(price_gpu=1), devices=(), tier=TIER, pythons=())


def test_a_machine_that_is_all_kept_back_offers_nothing() -> None:
    with pytest.raises(NothingToOffer, match="memory"):
        build_ask(
            MACHINE,
            Provider(price_cpu=1, reserve_memory_bytes=16 * GIB),
            devices=(),
            tier=TIER,
            pythons=(),
        )
