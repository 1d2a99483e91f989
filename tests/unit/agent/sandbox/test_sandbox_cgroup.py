"""Control groups of all three layouts, on folders that look like them."""

from __future__ import annotations

from pathlib import Path

from perak.agent.sandbox.cgroup import (
    CgroupHost,
    Counter,
    Limits,
    detect,
    parse_mounts,
)

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_mounts_of_a_hybrid_machine() -> None:
    assert parse_mounts(HYBRID) == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
        "": Path("/sys/fs/cgroup/unified"),
    }


def test_without_any_hierarchy_everything_is_explained() -> None:
    host, unenforced = detect("tag", mountinfo="22 27 0:21 / /proc rw - proc proc rw\n")
    assert host is None
    assert set(unenforced) == {"memory", "pids", "cpu"}
    assert all(unenforced.values())


def test_a_hierarchy_that_refuses_is_explained(tmp_path: Path) -> None:
    (tmp_path / "perak").write_text("in the way")
    mountinfo = "".join(f"1 1 0:1 / {tmp_path} rw - cgroup cgroup rw,{each}\n" for each in ("memory", "pids"))
    host, unenforced = detect("tag", mountinfo=mountinfo)
    assert host is None
    assert "memory" in unenforced["memory"]


def _fake_v2(root: Path, controllers: str) -> str:
    """A folder that looks like a v2 hierarchy; its files are plain, so writes overwrite."""
    for folder in (root, root / "perak", root / "perak" / "tag"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").touch()
    return f"1 1 0:1 / {root} rw - cgroup2 cgroup2 rw\n"


def test_v2_works_with_what_its_root_has(tmp_path: Path) -> None:
    host, missing = detect("tag", mountinfo=_fake_v2(tmp_path, "cpu io memory pids"))
    assert missing == {}
    assert host == CgroupHost(
        version=2, parents=dict.fromkeys(("memory", "pids", "cpu"), tmp_path / "perak" / "tag")
    )
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_v2_without_a_controller_says_which(tmp_path: Path) -> None:
    host, missing = detect("tag", mountinfo=_fake_v2(tmp_path, "cpu pids"))
    assert host is not None
    assert set(host.parents) == {"pids", "cpu"}
    assert set(missing) == {"memory"}


def test_limits_of_v2(tmp_path: Path) -> None:
    host = CgroupHost(version=2, parents=dict.fromkeys(("memory", "pids", "cpu"), tmp_path))
    folder = tmp_path / "run-1@local"
    folder.mkdir()
    (folder / "memory.swap.max").touch()
    group = host.create("run-1@local", Limits(cpu_milli=1500, memory_bytes=1 << 20, pids_max=7))
    assert (folder / "cpu.max").read_text() == "150000 100000"
    assert (folder / "memory.max").read_text() == "1048576"
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "pids.max").read_text() == "7"
    assert group.joins() == [str(folder / "cgroup.procs")]


def test_limits_of_v1(tmp_path: Path) -> None:
    parents = {each: tmp_path / each for each in ("memory", "pids", "cpu")}
    host = CgroupHost(version=1, parents=parents)
    group = host.create("run-1@local", Limits(cpu_milli=250, memory_bytes=1 << 20, pids_max=7))
    assert (tmp_path / "cpu/run-1@local/cpu.cfs_quota_us").read_text() == "25000"
    assert (tmp_path / "memory/run-1@local/memory.limit_in_bytes").read_text() == "1048576"
    assert (tmp_path / "pids/run-1@local/pids.max").read_text() == "7"
    assert len(group.joins()) == 3


def test_a_tiny_share_of_cpu_is_one_the_kernel_takes(tmp_path: Path) -> None:
    host = CgroupHost(version=1, parents={"cpu": tmp_path})
    host.create("r", Limits(cpu_milli=1, memory_bytes=1, pids_max=1))
    assert (tmp_path / "r/cpu.cfs_quota_us").read_text() == "1000"


def test_v2_folders_hand_their_controllers_down_when_made(tmp_path: Path) -> None:
    _fake_v2(tmp_path, "cpu memory pids")
    host = CgroupHost(version=2, parents=dict.fromkeys(("memory", "pids"), tmp_path / "perak" / "other"))
    host.create("run-1@local", Limits(cpu_milli=1, memory_bytes=1, pids_max=1))
    for folder in (tmp_path / "perak", tmp_path / "perak" / "other"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_counters_read_plain_and_keyed_files(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("2000000000\n")
    (tmp_path / "keyed").write_text("low 1\noom_kill 3\n")
    assert Counter(path=str(tmp_path / "plain"), scale=1e-9).read() == 2.0
    assert Counter(path=str(tmp_path / "keyed"), key="oom_kill").read() == 3
    assert Counter(path=str(tmp_path / "keyed"), key="none").read() is None
    assert Counter(path=str(tmp_path / "missing")).read() is None
