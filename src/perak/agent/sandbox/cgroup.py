"""Limits by control groups, on v1, v2 and hybrid machines alike.

What a machine lets us do is found out by doing it: a group is made, its limits are written and a process
is moved in. Whatever fails is reported as unenforced, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids", "cpu")
CPU_PERIOD_MICROSECONDS = 100_000
CPU_QUOTA_MICROSECONDS_MIN = 1_000  # the kernel refuses less (kernel docs, sched-bwc)
KILL_SECONDS = 5.0
KILL_POLL_SECONDS = 0.005

_parents_lock = threading.Lock()
"""An agent's folder is there while it has runs: made by the first that needs it, removed by the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one group may use; memory includes swap where the machine accounts for it."""

    cpu_milli: int
    memory_bytes: int
    pids_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One number in a cgroup file: after `key` in a keyed file, or the whole file when key is empty."""

    path: str
    key: str = ""
    scale: float = 1.0

    def read(self) -> float | None:
        """The number in our unit, or None when the file or the key isn't there."""
        try:
            text = Path(self.path).read_text()
        except OSError:
            return None
        for line in text.splitlines():
            key, _, value = line.rpartition(" ")
            if key == self.key:
                return int(value) * self.scale
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cgroups of one run: one folder by controller on v1, one folder in all on v2."""

    name: str
    folders: dict[str, Path]
    counters: dict[str, Counter]

    def joins(self) -> list[str]:
        """The files into which a process writes "0" to join."""
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self.folders.values())]

    def pids(self) -> set[int]:
        """Every process in the group."""
        found: set[int] = set()
        for path in self.joins():
            with contextlib.suppress(OSError):
                found.update(int(line) for line in Path(path).read_text().split())
        return found

    def kill(self) -> None:
        """Kill everything in the group and wait until it is gone, KILL_SECONDS at most."""
        deadline = time.monotonic() + KILL_SECONDS
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(KILL_POLL_SECONDS)

    def remove(self) -> None:
        """Remove the group; a busy one is killed first."""
        for folder in dict.fromkeys(self.folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                self.kill()
                _rmdir_patiently(folder)
        with _parents_lock:
            _remove_empty(folder.parent for folder in self.folders.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupHost:
    """Where this agent makes its groups: `parents` maps each controller that works to a folder of ours."""

    version: int
    parents: dict[str, Path]

    def group(self, name: str) -> Group:
        """The group of that name, whether it exists or not."""
        folders = {controller: parent / name for controller, parent in self.parents.items()}
        counters = _counters_v2(folders) if self.version == 2 else _counters_v1(folders)
        return Group(name=name, folders=folders, counters=counters)

    def create(self, name: str, limits: Limits) -> Group:
        """Make the group and write its limits; raises OSError and leaves nothing when one is refused."""
        group = self.group(name)
        try:
            with _parents_lock:
                for folder in dict.fromkeys(group.folders.values()):
                    _make_parent(folder.parent, controllers=self._handed_down())
                    folder.mkdir(exist_ok=True)
            (_limit_v2 if self.version == 2 else _limit_v1)(group.folders, limits)
        except OSError:
            group.remove()
            raise
        return group

    def names(self) -> set[str]:
        """The names of all groups that are there now."""
        found: set[str] = set()
        for parent in self.parents.values():
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in os.scandir(parent) if entry.is_dir())
        return found

    def _handed_down(self) -> list[str]:
        """What a folder of v2 must hand down to its groups; on v1 each hierarchy is a controller."""
        return [each for each in self.parents if each in CONTROLLERS] if self.version == 2 else []


def detect(tag: str, *, mountinfo: str | None = None) -> tuple[CgroupHost | None, dict[str, str]]:
    """The cgroups that this process can make under ``perak/<tag>``, and for each controller that doesn't
    work, why not.

    `mountinfo` is the text of /proc/self/mountinfo.
    """
    mounts = parse_mounts(mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text())
    unified = mounts.pop("", None)
    parents: dict[str, Path] = {}
    unenforced: dict[str, str] = {}
    for controller in CONTROLLERS:
        if controller in mounts:
            _try_v1(controller, mounts, parents, unenforced, tag)
    if parents:
        for controller in CONTROLLERS:
            if controller not in parents:
                unenforced.setdefault(controller, f"this kernel has no {controller} controller in cgroup v1")
        return CgroupHost(version=1, parents=parents), unenforced
    if unified is not None and not unenforced:
        return _detect_v2(unified, tag)
    reason = "this process may not make control groups (no cgroup file system is mounted)"
    return None, {each: unenforced.get(each, reason) for each in CONTROLLERS}


def parse_mounts(mountinfo: str) -> dict[str, Path]:
    """Where each v1 controller is mounted, and the unified (v2) hierarchy under the empty name."""
    found: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if not right:
            continue
        point, (kind, _, options) = Path(left.split()[4]), right.split(maxsplit=2)
        if kind == "cgroup2":
            found[""] = point
        elif kind == "cgroup":
            found.update((each, point) for each in options.split(",") if each in (*CONTROLLERS, "cpuacct"))
    return found


def _try_v1(
    controller: str, mounts: dict[str, Path], parents: dict[str, Path], unenforced: dict[str, str], tag: str
) -> None:
    parent = mounts[controller] / "perak" / tag
    try:
        _check_v1(controller, parent)
    except OSError as error:
        unenforced[controller] = f"the {controller} control group can't be used: {error.strerror}"
        return
    finally:
        _remove_empty([parent])
    parents[controller] = parent
    if controller == "cpu" and "cpuacct" in mounts:
        accounting = mounts["cpuacct"] / "perak" / tag
        with contextlib.suppress(OSError):
            accounting.mkdir(parents=True, exist_ok=True)
            parents["cpuacct"] = accounting
        _remove_empty([accounting])


def _check_v1(controller: str, parent: Path) -> None:
    """Raises OSError unless a group with a limit can be made here."""
    folder = parent / f"check-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _limit_v1({controller: folder}, Limits(cpu_milli=1000, memory_bytes=64 << 20, pids_max=8))
    finally:
        folder.rmdir()


def _limit_v1(folders: dict[str, Path], limits: Limits) -> None:
    if memory := folders.get("memory"):
        (memory / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        with contextlib.suppress(FileNotFoundError):  # there without swap accounting
            (memory / "memory.memsw.limit_in_bytes").write_text(str(limits.memory_bytes))
    if pids := folders.get("pids"):
        (pids / "pids.max").write_text(str(limits.pids_max))
    if cpu := folders.get("cpu"):
        (cpu / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_MICROSECONDS))
        (cpu / "cpu.cfs_quota_us").write_text(str(_quota_microseconds(limits.cpu_milli)))


def _counters_v1(folders: dict[str, Path]) -> dict[str, Counter]:
    counters: dict[str, Counter] = {}
    if memory := folders.get("memory"):
        counters["memory"] = Counter(path=str(memory / "memory.usage_in_bytes"))
        counters["memory_peak"] = Counter(path=str(memory / "memory.max_usage_in_bytes"))
        counters["oom"] = Counter(path=str(memory / "memory.oom_control"), key="oom_kill")
    if cpu := folders.get("cpu"):
        counters["throttled"] = Counter(path=str(cpu / "cpu.stat"), key="nr_throttled")
    if accounting := folders.get("cpuacct"):
        counters["cpu"] = Counter(path=str(accounting / "cpuacct.usage"), scale=1e-9)
    return counters


def _detect_v2(root: Path, tag: str) -> tuple[CgroupHost | None, dict[str, str]]:
    """Try the root of the hierarchy first (we are root), then our own group (systemd's Delegate=yes)."""
    reason = "this process may not make control groups; run the agent as root or with systemd's Delegate=yes"
    for base in dict.fromkeys((root, root / _own_group_v2().lstrip("/"))):
        try:
            missing = _enable_v2(base)
            parent = base / "perak" / tag
            usable = [each for each in CONTROLLERS if each not in missing]
            _make_parent(parent, controllers=usable)
            _remove_empty([parent])
        except OSError as error:
            reason = f"control groups can't be used under {base}: {error.strerror}"
            continue
        if usable:
            return CgroupHost(version=2, parents=dict.fromkeys(usable, parent)), missing
        reason = f"the v2 hierarchy at {base} has none of the controllers {', '.join(CONTROLLERS)}"
    return None, dict.fromkeys(CONTROLLERS, reason)


def _enable_v2(base: Path) -> dict[str, str]:
    """Hand the controllers that `base` has down to its children; says which ones it doesn't have."""
    available = (base / "cgroup.controllers").read_text().split()
    missing = {each: f"{base} has no {each} controller" for each in CONTROLLERS if each not in available}
    usable = [each for each in CONTROLLERS if each not in missing]
    try:
        _write_controllers(base, usable)
    except OSError:
        # A group below the root may either hold processes or hand down controllers: make room.
        leaf = base / "perak-agent"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
        _write_controllers(base, usable)
    return missing


def _make_parent(parent: Path, *, controllers: list[str]) -> None:
    """Make the folder that groups are made in; `controllers` are handed down to it and on to them."""
    if parent.exists():
        return
    parent.mkdir(parents=True, exist_ok=True)
    if controllers:
        for folder in (parent.parent, parent):
            _write_controllers(folder, controllers)


def _remove_empty(parents: Iterable[Path]) -> None:
    """Remove those that hold no group; the one above, ``perak``, stays: other agents may have it in use."""
    for parent in dict.fromkeys(parents):
        with contextlib.suppress(OSError):
            parent.rmdir()


def _write_controllers(folder: Path, controllers: list[str]) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def _limit_v2(folders: dict[str, Path], limits: Limits) -> None:
    if memory := folders.get("memory"):
        (memory / "memory.max").write_text(str(limits.memory_bytes))
        with contextlib.suppress(FileNotFoundError):
            (memory / "memory.swap.max").write_text("0")
        (memory / "memory.oom.group").write_text("1")
    if pids := folders.get("pids"):
        (pids / "pids.max").write_text(str(limits.pids_max))
    if cpu := folders.get("cpu"):
        (cpu / "cpu.max").write_text(f"{_quota_microseconds(limits.cpu_milli)} {CPU_PERIOD_MICROSECONDS}")


def _counters_v2(folders: dict[str, Path]) -> dict[str, Counter]:
    counters: dict[str, Counter] = {}
    if memory := folders.get("memory"):
        counters["memory"] = Counter(path=str(memory / "memory.current"))
        counters["memory_peak"] = Counter(path=str(memory / "memory.peak"))
        counters["oom"] = Counter(path=str(memory / "memory.events"), key="oom_kill")
    if cpu := folders.get("cpu"):
        counters["throttled"] = Counter(path=str(cpu / "cpu.stat"), key="nr_throttled")
    if folder := next(iter(folders.values()), None):
        counters["cpu"] = Counter(path=str(folder / "cpu.stat"), key="usage_usec", scale=1e-6)
    return counters


def _own_group_v2() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _quota_microseconds(cpu_milli: int) -> int:
    return max(CPU_QUOTA_MICROSECONDS_MIN, cpu_milli * CPU_PERIOD_MICROSECONDS // 1000)


def _rmdir_patiently(folder: Path) -> None:
    """A killed process leaves its group a moment after it has left the list."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(KILL_POLL_SECONDS)
        else:
            return
