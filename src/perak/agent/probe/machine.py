"""The processor, memory and disk that this agent may hand on, by /proc and the control groups it lives in."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL_CHARACTERS_MAX = 100
_UNLIMITED_BYTES = 2**60
"""Control groups v1 say "no limit" with a number near 2**63."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is in all, before anything is kept back."""

    cpu_model: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    """Free where runs keep their scratch."""


def probe_machine(state_dir: Path, *, root: Path = Path("/")) -> Machine:
    """The machine as this process may use it; `root` is where /proc and /sys are found."""
    return Machine(
        cpu_model=_cpu_model(root),
        cpu_milli=_cpu_milli(root),
        memory_bytes=_memory_bytes(root),
        disk_bytes=_free_bytes(state_dir),
    )


def _cpu_model(root: Path) -> str:
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model") and value.strip():
            return " ".join(value.split())[:MODEL_CHARACTERS_MAX]
    return f"unknown {platform.machine() or 'processor'}"


def _cpu_milli(root: Path) -> int:
    """The CPUs that this process may run on, or its group's quota if that is less."""
    allowed = len(os.sched_getaffinity(0)) * 1000
    return min([allowed, *_cpu_quotas(root)])


def _cpu_quotas(root: Path) -> Iterator[int]:
    for folder in _group_folders(root, "cpu"):
        quota, period = [*_first_words(folder / "cpu.max"), "", ""][:2]
        if not quota:
            quota = next(iter(_first_words(folder / "cpu.cfs_quota_us")), "")
            period = next(iter(_first_words(folder / "cpu.cfs_period_us")), "")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield max(1, int(quota) * 1000 // int(period))


def _memory_bytes(root: Path) -> int:
    total = 0
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limits = [
        int(word)
        for folder in _group_folders(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for word in _first_words(folder / name)
        if word.isdigit() and int(word) < _UNLIMITED_BYTES
    ]
    return min([total, *limits])


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's control group and those above it: any of them may set the limit that counts."""
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = mounted / controller if names else mounted
        folder = top / path.strip("/")
        while True:
            if folder.is_dir():
                yield folder
            if folder == top:
                break
            folder = folder.parent


def _first_words(path: Path) -> list[str]:
    return next((line.split() for line in _lines(path)), [])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
