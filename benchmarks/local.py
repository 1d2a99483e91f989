"""A whole Perak on this machine for a measurement: `perak up` in a state folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Local:
    """A running `perak up`; `pid` is its supervisor's."""

    url: str
    api_key: str
    pid: int
    state_dir: Path


@contextlib.contextmanager
def perak_up(*options: str) -> Iterator[Local]:
    """Start `perak up` with an empty state, wait until it is ready, and stop it in the end."""
    state_dir = Path(tempfile.mkdtemp(prefix="perak-bench-", dir="/var/tmp"))
    state_dir.chmod(0o711)  # as root, database and runs have users of their own, who must pass
    command = [sys.executable, "-m", "perak", "up", "--state-dir", str(state_dir), "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield _when_ready(process, state_dir)
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS_MAX)
        if process.poll() is None:
            process.kill()
        shutil.rmtree(state_dir, ignore_errors=True)


def _when_ready(process: subprocess.Popen[str], state_dir: Path) -> Local:
    """Wait for the line that says so; keep reading afterwards, so that a full pipe never stops anyone."""
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True).start()
    timer = threading.Timer(READY_SECONDS_MAX, process.kill)
    timer.start()
    ready = any("ready" in line for line in process.stdout)
    timer.cancel()
    if not ready:
        raise SystemExit("perak up did not get ready:\n" + "".join(errors[-20:]))
    threading.Thread(target=lambda: list(process.stdout or ()), daemon=True).start()
    found = json.loads((state_dir / "local.json").read_text())
    return Local(found["url"], found["api_key"], process.pid, state_dir)


def processes_below(pid: int) -> dict[int, str]:
    """The process and its descendants, with their command lines."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text()
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        current = pending.pop()
        with contextlib.suppress(OSError):
            found[current] = (
                (Path("/proc") / str(current) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            )
        pending += children.get(current, [])
    return found


def proportional_mib(pid: int) -> float:
    """PSS of a process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no Pss of {pid}")


def quiet_environment() -> dict[str, str]:
    """The environment without what would send the client elsewhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PERAK_")}
