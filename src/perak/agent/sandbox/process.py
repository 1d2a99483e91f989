"""Who a process is, so that a reused pid or a reboot is never taken for the shim that we started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KILL_SECONDS = 5.0
KILL_POLL_SECONDS = 0.005
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A pid with its start time in clock ticks since boot and the boot it belongs to."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """The fields of /proc/PID/stat that we use (proc(5))."""

    state: str
    parent: int
    cpu_ticks: int
    start_ticks: int
    resident_bytes: int


def boot_id() -> str:
    """This boot of the kernel; changes with every reboot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> ProcessStat | None:
    """What /proc says of `pid`, or None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return ProcessStat(
        state=fields[0],
        parent=int(fields[1]),
        cpu_ticks=sum(int(each) for each in fields[11:15]),
        start_ticks=int(fields[19]),
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


def identify(pid: int) -> ProcessId | None:
    """The identity of a process that runs now."""
    stat = read_stat(pid)
    if stat is None:
        return None
    return ProcessId(pid=pid, start_ticks=stat.start_ticks, boot_id=boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    if process.boot_id != boot_id():
        return False
    stat = read_stat(process.pid)
    return stat is not None and stat.state not in "ZX" and stat.start_ticks == process.start_ticks


def kill(process: ProcessId) -> None:
    """Kill this very process and wait until it is gone, KILL_SECONDS at most."""
    deadline = time.monotonic() + KILL_SECONDS
    while is_alive(process) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(KILL_POLL_SECONDS)


def descendants(pid: int) -> dict[int, ProcessStat]:
    """Every live process below `pid`, found by a walk over /proc."""
    table: dict[int, ProcessStat] = {}
    for entry in os.listdir(PROC):
        if entry.isdigit() and (stat := read_stat(int(entry))) is not None:
            table[int(entry)] = stat
    found: dict[int, ProcessStat] = {}
    level = {pid}
    while level:
        level = {each for each, stat in table.items() if stat.parent in level and each not in found}
        found.update((each, table[each]) for each in level)
    return found


def real_uid(pid: int) -> int | None:
    """Whose process it is; the owner of /proc/PID itself may be root for a process that can't be dumped."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None


def owned_by(uid: int) -> set[int]:
    """Every live process that belongs to that user.

    No zombie: an orphan's may stay for long where the machine's first process is slow to take leave of it.
    """
    found: set[int] = set()
    for entry in os.listdir(PROC):
        with contextlib.suppress(OSError):
            if not entry.isdigit() or (PROC / entry).stat().st_uid != uid:
                continue
            if (stat := read_stat(int(entry))) is not None and stat.state not in "ZX":
                found.add(int(entry))
    return found
