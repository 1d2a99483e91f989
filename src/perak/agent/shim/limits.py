"""What the kernel doesn't hold or count for us: memory and disk where there is no group or image for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from perak.agent.shim import proc

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch

FULL_BYTES = 256 * 1024  # a scratch with less room is full: ext4 refuses to write its last 100 KiB or so


class Watch:
    """Looks at a run every so often, and remembers the most that it saw."""

    def __init__(self, plan: Launch) -> None:
        self.plan = plan
        self.memory_seen = 0
        self.disk_was_full = False

    def look(self, first: int | None) -> tuple[str, str] | None:
        """The limit that is broken, as cause and detail; `first`: the job's first process, if it has one."""
        return self._look_at_disk() or (self._look_at_memory(first) if first is not None else None)

    def _look_at_memory(self, first: int) -> tuple[str, str] | None:
        limit = self.plan["memory_watch_bytes"]
        if limit is None:
            return None
        pids = set(proc.below(first))
        if (uid := self.plan["uid"]) is not None:
            pids |= set(proc.owned_by(uid))  # whoever entered by a terminal is below another process
        resident = sum(proc.resident_bytes(pid) for pid in pids)
        if resident > limit:  # Perhaps only because what they share was counted for each.
            resident = sum(proc.proportional_bytes(pid) for pid in pids)
        self.memory_seen = max(self.memory_seen, resident)
        if resident > limit:
            return "oom", f"used {resident} bytes of memory, its limit is {limit}"
        return None

    def _look_at_disk(self) -> tuple[str, str] | None:
        limit = self.plan["disk_watch_bytes"]
        if limit is None:
            self.disk_was_full = self.disk_was_full or is_full(self.plan["scratch"])
            return None
        used, files = tree_use(self.plan["scratch"])
        files_max = self.plan.get("files_watch")
        if used > limit:
            return "disk_full", f"used {used} bytes of disk, its limit is {limit}"
        if files_max is not None and files > files_max:
            return "disk_full", f"made {files} files, its limit is {files_max}"
        return None


def counter(plan: Launch, name: str) -> float | None:
    """A number from the run's cgroup (path, key in the file or nothing, factor to our unit)."""
    if name not in plan["counters"]:
        return None
    path, key, scale = plan["counters"][name]
    for line in proc.read(path).splitlines():
        left, _, right = line.rpartition(" ")
        if left == key:
            return float(int(right) * scale)
    return None


def is_full(folder: str) -> bool:
    """Whether its file system has no room for bytes, or for files."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < FULL_BYTES or room.f_favail == 0


def files_taken(folder: str) -> int:
    """How many files the scratch has room for, where that is what it is full of; else 0."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return room.f_files if room.f_favail == 0 else 0


def tree_use(folder: str) -> tuple[int, int]:
    """(bytes on disk, files and folders) below `folder`; what vanishes meanwhile isn't counted."""
    total = files = 0
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue
    return total, files
