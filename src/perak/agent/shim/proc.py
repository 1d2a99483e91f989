"""What /proc says of processes, and signals to them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal


def read(path: str) -> str:
    """A small file's text, empty when it isn't there."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def stat_fields(pid: str) -> list[str]:
    """/proc/PID/stat from its third field (state) on, empty when there is no such process."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def parent(pid: int) -> int:
    """The process that it is a child of, 0 when there is no such process."""
    fields = stat_fields(str(pid))
    return int(fields[1]) if fields else 0


def resident_bytes(pid: int) -> int:
    """What it has in memory, 0 when there is no such process."""
    fields = stat_fields(str(pid))
    return int(fields[21]) * resource.getpagesize() if fields else 0


def proportional_bytes(pid: int) -> int:
    """The same, but of what it shares with others its part alone; slower, as it walks all pages."""
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return resident_bytes(pid)


def children(of: int) -> list[int]:
    """The processes right below that one."""
    return [int(each) for each in os.listdir("/proc") if each.isdigit() and parent(int(each)) == of]


def below(root: int) -> list[int]:
    """The processes below `root`, without it."""
    parents = {int(each): parent(int(each)) for each in os.listdir("/proc") if each.isdigit()}
    found: list[int] = []
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def owned_by(uid: int) -> list[int]:
    """The processes of that user."""
    found = []
    for each in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if each.isdigit() and os.stat(f"/proc/{each}").st_uid == uid:
                found.append(int(each))
    return found


def catches_term(pid: int) -> bool:
    """Whether it has a handler for SIGTERM."""
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def send_signal(pid: int, number: int) -> None:
    """Nothing happens when there is no such process."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)
