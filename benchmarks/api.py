"""Requests a second for the list of jobs with 1,000 in the database, over 8 connections."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.local import perak_up
from perak import AsyncClient
from perak.wire.api import PAGE_LIMIT_DEFAULT

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
    """Each connection asks again as soon as it is answered.

    Written on plain streams: a full HTTP client would cost more than the exchange and be what is measured.
    """
    where = urlsplit(url)
    assert where.hostname
    request = (
        f"GET /v1/jobs HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {api_key}\r\n\r\n"
    ).encode()
    answered = 0

    async def ask(until: float) -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        while time.perf_counter() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(length))
            assert body.count(b'"name":"listed-') == PAGE_LIMIT_DEFAULT, body[:200]
            answered += 1
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(ask(begin + SECONDS) for _ in range(CONNECTIONS)))
    return answered / (time.perf_counter() - begin)
