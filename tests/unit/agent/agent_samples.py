"""Leases and states of runs for the tests of the agent."""

from __future__ import annotations

from typing import Any

from perak.agent.sandbox import RunStatus
from perak.wire.session import LeaseOrder


def order(number: int = 1, **changes: Any) -> LeaseOrder:
    tail = f"{number:018d}@test"
    fields: dict[str, Any] = {
        "lease": f"lease-{tail}",
        "run": f"run-{tail}",
        "job": f"job-{tail}",
        "epoch": 1,
        "wanted": "run",
        "name": "try",
        "command": "true",
        "cpu_milli": 250,
        "memory_bytes": 2**28,
        "disk_bytes": 10**8,
        "shm_bytes": 2**26,
        "max_duration_seconds": 60,
    }
    return LeaseOrder(**(fields | changes))


def status(one: LeaseOrder, state: Any = "running", **changes: Any) -> RunStatus:
    fields: dict[str, Any] = {"run_id": one.run, "state": state, "started_at": 100.0}
    if state == "exited":
        fields |= {"ended_at": 101.0, "exit_code": 0, "cause": "exited"}
    return RunStatus(**(fields | changes))
