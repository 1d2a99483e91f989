"""A device is offered only after it ran a kernel in the sandbox, and a run sees its own devices alone.

The driver is a stand-in, compiled here; which parts of this were tried on a card is said in docs/gpu.md.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_runs import MIB, Runs

from perak.agent.environments import interpreters
from perak.agent.probe.driver import Driver
from perak.agent.probe.fitness import Fitness
from perak.agent.probe.nvidia import Nvidia
from perak.agent.sandbox import Mount
from perak.agent.sandbox.escape import attack
from stand_ins import make_driver, uuid


@pytest.fixture
def nvml_of() -> Iterator[Any]:
    """pynvml, with the library of the driver root it is given; it forgets it afterwards."""
    pynvml: Any = pytest.importorskip("pynvml")

    def load(root: Path) -> Any:
        pynvml.nvmlLib = ctypes.CDLL(str(root / "lib/libnvidia-ml.so.1"))
        pynvml.nvmlInit()
        return pynvml

    yield load
    importlib.reload(pynvml)


class Machine:
    """A stand-in machine with cards, and the check of them."""

    def __init__(self, runs: Runs, root: Path, nvml: Any) -> None:
        found = Driver.find({"PERAK_NVIDIA_ROOT": str(root)})
        assert found is not None
        self.driver = found
        self.nvidia = Nvidia(nvml, found)
        python = interpreters()
        if not python:
            pytest.skip("no system Python to check devices with")
        self.fitness = Fitness(
            sandbox=runs.sandbox, nvidia=self.nvidia, interpreter=python[0], check_seconds=15
        )

    def unfit(self) -> dict[str, str]:
        devices = [each.device for each in self.nvidia.devices]
        self.fitness.check(devices)
        return self.fitness.unfit(devices)


@pytest.fixture
def machine(runs: Runs, state_dir: Path, nvml_of: Any) -> Any:
    def make(**options: Any) -> Machine:
        root = make_driver(state_dir / "driver", **options)
        return Machine(runs, root, nvml_of(root))

    return make


def test_devices_that_run_a_kernel_in_the_sandbox_are_fit(machine: Any) -> None:
    found = machine()
    devices = [each.device for each in found.nvidia.devices]
    assert set(found.fitness.unfit(devices)) == {uuid(0), uuid(1)}, "none is offered before it was checked"
    assert found.unfit() == {}
    assert not found.fitness.is_due(devices), "one that is fit is not checked again"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"INIT_ERROR": 999}, "cuInit answered 999 CUDA_ERROR_UNKNOWN"),
        ({"library": False}, "libcuda.so.1"),
        ({"WRONG_CARD": 1}, "2048 of 4096"),
    ],
)
def test_a_device_that_fails_is_left_out_with_the_reason(
    machine: Any, fault: dict[str, Any], why: str
) -> None:
    unfit = machine(**fault).unfit()
    assert set(unfit) == ({uuid(1)} if "WRONG_CARD" in fault else {uuid(0), uuid(1)})
    assert all(why in reason for reason in unfit.values())


def test_a_device_that_hangs_is_left_out_and_its_check_is_ended(machine: Any, runs: Runs) -> None:
    found = machine(HANG_CARD=0)
    found.fitness.check_seconds = 3
    unfit = found.unfit()
    assert set(unfit) == {uuid(0)}
    assert "hangs" in unfit[uuid(0)]
    assert not list((runs.sandbox.state_dir / "runs").glob("probe-gpu*"))


@pytest.mark.parametrize(
    ("fault", "outcome", "detail"),
    [
        ({}, "passed", "2 GPU(s)"),
        ({"LEAKY_CARD": 1}, "failed", "in the memory of GPU 1"),
        ({"LEAKY_CARD": 1, "USED_CARD": 1}, "passed", "1 GPU(s)"),  # somebody's memory is not to be filled
        ({"library": False}, "not_run", "libcuda.so.1"),
    ],
)
def test_what_a_run_leaves_in_a_cards_memory_is_found(
    machine: Any, runs: Runs, fault: dict[str, Any], outcome: str, detail: str
) -> None:
    nvidia = machine(**fault).nvidia
    (result,) = attack(runs.sandbox, only={"device-memory-leftovers"}, nvidia=nvidia)
    assert result.outcome == outcome
    assert detail in result.detail


def test_a_device_that_failed_is_tried_again(machine: Any) -> None:
    found = machine(INIT_ERROR=3)
    found.unfit()
    devices = [each.device for each in found.nvidia.devices]
    assert not found.fitness.is_due(devices)
    found.fitness.again_seconds = 0.0
    assert found.fitness.is_due(devices)


def test_a_device_that_a_run_uses_is_offered_and_left_alone(machine: Any, runs: Runs) -> None:
    found = machine(INIT_ERROR=3)
    access = found.nvidia.access((uuid(0),))
    run_id = runs.start("sleep 30", env=access.env, device_nodes=access.nodes, mounts=access.mounts)
    assert set(found.unfit()) == {uuid(1)}
    runs.sandbox.clear(run_id)
    assert set(found.unfit()) == {uuid(0), uuid(1)}


def test_a_run_sees_its_own_device_alone(machine: Any, runs: Runs) -> None:
    access = machine().nvidia.access((uuid(1),))
    status, log = runs.run(
        "ls -d /dev/nvidia*; echo x >/dev/nvidia1 && echo opened; ls $LD_LIBRARY_PATH; "
        "mknod /dev/nvidia0 c 195 0 || mknod /work/nvidia0 c 195 0 || echo refused; "
        "ls /sys; ls /sys/devices/system; ls /dev/mem || true; echo $CUDA_VISIBLE_DEVICES; "
        "touch /sys/x || echo closed",
        env=access.env,
        device_nodes=access.nodes,
        mounts=access.mounts,
        masks=access.masks,
    )
    assert status.exit_code == 0, log
    nodes = [line for line in log.splitlines() if line.startswith("/dev/nvidia")]
    assert nodes == ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia1", "/dev/nvidiactl"]
    for expected in ("opened", "refused", "closed", "libcuda.so.1", "libnvidia-ml.so.1", uuid(1)):
        assert expected in log.splitlines()
    assert "net" not in log.split()


def test_a_folder_of_the_kernels_is_masked_but_for_what_is_shown(runs: Runs) -> None:
    """So is the driver's own /proc shown; its folder isn't there without a card, so another stands in."""
    status, log = runs.run(
        "ls /proc/sys; cat /proc/sys/nvidia/params | head -1; touch /proc/sys/x || echo closed",
        masks=("/proc/sys",),
        mounts=(Mount(source="/etc/alternatives/README", target="/proc/sys/nvidia/params"),),
    )
    assert status.exit_code == 0, log
    lines = log.splitlines()
    assert lines[0] == "nvidia"
    assert "alternatives" in lines[1].lower()
    assert lines[-1] == "closed"


def test_memory_is_limited_by_the_control_group_and_never_by_address_space(runs: Runs) -> None:
    _, log = runs.run("ulimit -v; grep 'Max address space' /proc/self/limits; df -k /dev/shm | tail -1")
    lines = log.splitlines()
    assert lines[0] == "unlimited"
    assert lines[1].split()[-3:-1] == ["unlimited", "unlimited"]
    assert int(lines[2].split()[1]) == 4 * MIB // 1024, "shm_bytes is the size of /dev/shm"
