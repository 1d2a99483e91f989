"""What the sandbox's tests share: starting runs and waiting for them."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from perak.agent.sandbox import RunSpec, RunStatus, Sandbox

MIB = 1 << 20
END_SECONDS = 60.0
"""Only a failing test waits this long; a machine that is busy with others takes many seconds."""


class Runs:
    """Starts runs with small defaults and waits for them by their pokes."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.poke: socket.socket = sandbox.open_poke_socket()
        self._count = 0

    def spec(self, command: str | None, **changes: Any) -> RunSpec:
        self._count += 1
        fields: dict[str, Any] = {
            "run_id": f"run-{os.getpid()}x{self._count}@local",
            "lease_id": "lease-1@local",
            "job_id": "job-1@local",
            "epoch": 1,
            "setup": None,
            "command": command,
            "cpu_milli": 1000,
            "memory_bytes": 128 * MIB,
            "disk_bytes": 16 * MIB,
            "shm_bytes": 4 * MIB,
            "log_bytes_max": MIB,
            "max_duration_seconds": END_SECONDS,
        }
        return RunSpec(**fields | changes)

    def start(self, command: str | None, **changes: Any) -> str:
        spec = self.spec(command, **changes)
        self.sandbox.prepare(spec)
        self.sandbox.start(spec.run_id)
        return spec.run_id

    def run(self, command: str, **changes: Any) -> tuple[RunStatus, str]:
        """Start, wait for the end, release; the status and the whole log."""
        run_id = self.start(command, **changes)
        status = self.until(run_id, lambda status: status.state in ("exited", "lost"))
        log = self.log(run_id)
        self.sandbox.release(run_id)
        return status, log

    def log(self, run_id: str) -> str:
        return self.sandbox.read_log(run_id, 0, 64 * MIB).decode(errors="replace")

    def until(self, run_id: str, wanted: Callable[[RunStatus], bool]) -> RunStatus:
        deadline = time.monotonic() + END_SECONDS
        while not wanted(status := self.sandbox.status(run_id)):
            assert time.monotonic() < deadline, f"{status}: {self.log(run_id)}"
            if select.select([self.poke], [], [], 0.1)[0]:
                self.poke.recv(256)
        return status

    def until_logged(self, run_id: str, text: str) -> None:
        self.until(run_id, lambda _: text in self.log(run_id))
