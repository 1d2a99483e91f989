"""What of a driver a run sees: found where it lies, and no more than it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perak.agent.probe import driver
from perak.agent.probe.driver import LIBRARY_TARGET, Driver, bus_id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A driver in a folder of its own, among other things."""
    for folder in ("dev", "usr/lib64", "proc/gpus/0000:3b:00.0", "proc/gpus/0000:af:00.0"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    libraries = tmp_path / "usr/lib64"
    (libraries / "libcuda.so.580").touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.580")
    for name in (
        "libnvidia-ml.so.1",
        "libnvidia-nvvm.so.4",
        "libnvidia-nvvm70.so.4",
        "libGLX.so.0",
        "libc.so.6",
    ):
        (libraries / name).touch()
    for name in ("params", "version"):
        (tmp_path / "proc" / name).touch()
    return tmp_path


def test_a_driver_outside_usr_is_mounted_library_by_library(root: Path) -> None:
    found = Driver.find({"PERAK_NVIDIA_ROOT": str(root)})
    assert found is not None
    access = found.access(minors=[1], uuids=["GPU-1"], bus_ids=[])
    assert access.nodes == tuple(str(root / "dev" / name) for name in ("nvidia1", "nvidiactl", "nvidia-uvm"))
    mounts = {mount.target: mount.source for mount in access.mounts}
    assert {Path(target).name for target in mounts if target.startswith(LIBRARY_TARGET)} == {
        "libcuda.so.1", "libcuda.so.580", "libnvidia-ml.so.1", "libnvidia-nvvm.so.4", "libnvidia-nvvm70.so.4",
    }  # fmt: skip
    assert mounts[f"{LIBRARY_TARGET}/libcuda.so.1"].endswith("libcuda.so.580"), (
        "a link leads nowhere in there"
    )
    assert access.env["LD_LIBRARY_PATH"] == LIBRARY_TARGET


def test_the_folders_that_programs_search_are_searched(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = Driver.find({"LD_LIBRARY_PATH": f"/nowhere:{root / 'usr/lib64'}"})
    assert found == Driver(root=Path("/"), libraries=root / "usr/lib64")
    if driver._cached() is None:
        assert Driver.find({"PERAK_NVIDIA_ROOT": str(tmp_path_factory.mktemp("empty"))}) is None


def test_a_driver_that_the_sandbox_sees_anyway_is_not_mounted_again() -> None:
    access = Driver().access(minors=[0], uuids=["GPU-0"], bus_ids=[])
    assert "LD_LIBRARY_PATH" not in access.env
    assert not [mount for mount in access.mounts if mount.target.startswith(LIBRARY_TARGET)]


def test_a_run_in_an_image_gets_the_driver_that_lies_in_usr(root: Path) -> None:
    """The image has a /usr of its own, in which the node's driver is not."""
    access = Driver(in_usr=root / "usr/lib64").for_image().access(minors=[0], uuids=["GPU-0"], bus_ids=[])
    targets = {Path(mount.target).name for mount in access.mounts if mount.target.startswith(LIBRARY_TARGET)}
    assert {"libcuda.so.1", "libnvidia-ml.so.1"} <= targets
    assert "libc.so.6" not in targets
    assert access.env["LD_LIBRARY_PATH"] == LIBRARY_TARGET


def test_of_the_drivers_proc_only_the_own_cards_are_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "PROC_FOLDER", str(root / "proc"))
    access = Driver().access(minors=[0], uuids=["GPU-0"], bus_ids=["0000:3b:00.0"])
    assert access.masks == (str(root / "proc"),)
    shown = [mount.target for mount in access.mounts if mount.target.startswith(str(root / "proc"))]
    assert shown == [str(root / "proc" / name) for name in ("params", "version", "gpus/0000:3b:00.0")]


@pytest.mark.parametrize("text", ["00000000:3B:00.0", "0000:3b:00.0"])
def test_a_place_on_the_bus_is_written_as_the_kernel_does(text: str) -> None:
    assert bus_id(text) == "0000:3b:00.0"
