"""500 trivial jobs submitted at once, until all are settled; they queue, none fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from benchmarks.local import perak_up
from perak import AsyncClient

JOBS = 500
SUBMITTING = 32
"""Submissions under way at once; the client's pool has as many connections."""
POLL_SECONDS = 0.2
GIVE_UP_SECONDS = 180


def measure() -> Iterator[tuple[str, float, str]]:
    with perak_up("--fund", "1000") as local:
        seconds, failed = asyncio.run(_burst(local.url, local.api_key))
    yield "jobs_per_s", round(JOBS / seconds, 2), "jobs/s"
    yield "failed", failed, "jobs"


async def _burst(url: str, api_key: str) -> tuple[float, int]:
    async with AsyncClient(url=url, api_key=api_key) as client:
        await client.run({"name": "warm", "run": "echo hi"})
        gate = asyncio.Semaphore(SUBMITTING)

        async def submit(number: int) -> None:
            async with gate:
                await client.submit({"name": f"burst-{number}", "run": "echo hi"})

        begin = time.perf_counter()
        await asyncio.gather(*(submit(number) for number in range(JOBS)))
        while time.perf_counter() - begin < GIVE_UP_SECONDS:
            waiting = [job async for job in client.jobs(state=["queued", "leased", "running", "cancelling"])]
            if not waiting:
                break
            await asyncio.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - begin
        states = [job.state async for job in client.jobs() if job.name.startswith("burst-")]
        assert len(states) == JOBS, f"{len(states)} jobs of {JOBS}"
        return seconds, sum(state != "succeeded" for state in states)
