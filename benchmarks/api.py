"""Requests a second for the list of jobs with 1,000 in the database, over 8 connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx

from benchmarks.local import perak_up
from perak import AsyncClient

JOBS = 1000
CONNECTIONS = 8
SECONDS = 8.0


def measure() -> Iterator[tuple[str, float, str]]:
    with perak_up("--no-agent", "--fund", "100000") as local:
        asyncio.run(_fill(local.url, local.api_key))
        rate = asyncio.run(_rate(local.url, local.api_key))
    yield "list_requests_per_s", round(rate, 1), "requests/s"


async def _fill(url: str, api_key: str) -> None:
    gate = asyncio.Semaphore(16)
    async with AsyncClient(url=url, api_key=api_key) as client:

        async def submit(number: int) -> None:
            async with gate:
                await client.submit({"name": f"listed-{number}", "run": "true"})

        await asyncio.gather(*(submit(number) for number in range(JOBS)))


async def _rate(url: str, api_key: str) -> float:
    """Each connection asks again as soon as it is answered."""
    headers = {"Authorization": f"Bearer {api_key}"}
    answered = 0

    async def ask(until: float) -> None:
        nonlocal answered
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            while time.perf_counter() < until:
                reply = await client.get("/v1/jobs")
                assert reply.status_code == 200, reply.text
                answered += 1

    begin = time.perf_counter()
    await asyncio.gather(*(ask(begin + SECONDS) for _ in range(CONNECTIONS)))
    return answered / (time.perf_counter() - begin)
