"""Small leases, as an exchange would list them."""

from __future__ import annotations

from typing import Any

from perak.wire.session import LeaseOrder


def order(number: int, command: str, **changes: Any) -> LeaseOrder:
    """A small lease; the ids differ by `number`."""
    tail = f"{number:018d}@test"
    fields: dict[str, Any] = {
        "lease": f"lease-{tail}",
        "run": f"run-{tail}",
        "job": f"job-{tail}",
        "epoch": 1,
        "wanted": "run",
        "name": "try",
        "command": command,
        "cpu_milli": 250,
        "memory_bytes": 2**28,
        "disk_bytes": 10**8,
        "shm_bytes": 2**26,
        "max_duration_seconds": 60,
    }
    return LeaseOrder(**(fields | changes))
