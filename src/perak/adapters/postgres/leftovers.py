"""End what an owner that died without stopping its server left behind.

The caller holds the state folder's lock, so no live process of ours owns these. A server's processes are
known by their working folder, which is the cluster itself: a process id in a file may long belong to
somebody else.
"""

import os
import signal
import time
from pathlib import Path

from perak.adapters.postgres.errors import AlreadyRunning
from perak.adapters.postgres.layout import Layout

# A fast shutdown writes a checkpoint; then backends are told to quit, and the next start recovers.
FAST_SHUTDOWN_SECONDS = 30.0
QUIT_SECONDS = 5.0
POLL_SECONDS = 0.01


def end_leftovers(layout: Layout) -> None:
    """End the server of an earlier owner in order, and clear its lock files.

    Raises `AlreadyRunning` if it can't be ended.
    """
    if not layout.pid_file.exists():
        return
    for number, patience in ((signal.SIGINT, FAST_SHUTDOWN_SECONDS), (signal.SIGQUIT, QUIT_SECONDS)):
        for pid in _addressed(layout, number):
            _signal(pid, number)
        if _gone(layout.data, patience):
            break
    else:
        raise AlreadyRunning(
            f"A database server of {layout.home} (process {min(processes_in(layout.data), default=0)}) is "
            "still running and does not end. End it by hand and start again."
        )
    for stale in (layout.pid_file, layout.socket, layout.socket.with_name(layout.socket.name + ".lock")):
        stale.unlink(missing_ok=True)


def processes_in(data: Path) -> set[int]:
    """Return the processes whose working folder is `data`."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                if os.readlink(f"/proc/{entry.name}/cwd") == str(data):
                    found.add(int(entry.name))
            except OSError:  # Ended meanwhile, or not ours to see.
                continue
    return found


def _addressed(layout: Layout, number: signal.Signals) -> set[int]:
    """Return whom to signal: the postmaster, which ends the rest; without one, all that is left."""
    running = processes_in(layout.data)
    try:
        postmaster = int(layout.pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return running
    return {postmaster} if postmaster in running and number == signal.SIGINT else running


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _gone(data: Path, patience_seconds: float) -> bool:
    deadline = time.monotonic() + patience_seconds
    while processes_in(data):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
