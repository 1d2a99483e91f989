"""PSS of the idle exchange and the idle agent, each with all of its processes but PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.local import perak_up, processes_below, proportional_mib
from perak import Client

SETTLE_SECONDS = 6.0


def measure() -> Iterator[tuple[str, float, str]]:
    with perak_up() as local:
        with Client(url=local.url, api_key=local.api_key) as client:
            client.run({"name": "warm", "run": "echo hi"})
        time.sleep(SETTLE_SECONDS)
        parts = {"exchange": 0.0, "agent": 0.0}
        for pid, command in processes_below(local.pid).items():
            if "postgres" in command.split(" ")[0]:
                continue
            part = "agent" if " agent " in f"{command} " or "shim" in command else "exchange"
            parts[part] += proportional_mib(pid)
    yield "exchange_mib", round(parts["exchange"], 1), "MiB"
    yield "agent_mib", round(parts["agent"], 1), "MiB"
