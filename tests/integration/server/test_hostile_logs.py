"""Logs without end, in bytes that are no text, before readers who do not read: the exchange stays small."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from server_world import PLAIN, Running, ScriptedNode, chunk, exited, now_ms, started

from perak.server.auth import new_secret
from perak.wire.session import LOG_CHUNK_BYTES_MAX

LOG_BYTES = 48 * 2**20
"""Much more than the exchange may grow by, and in a few seconds through it."""
GROWTH_BYTES_MAX = 32 * 2**20
"""Four stuck followers hold some 2 MiB each (a read of the log, in base64 and as text), a session 4 MiB."""


@contextlib.asynccontextmanager
async def exchange_process(database_url: str, state_dir: Path) -> AsyncIterator[tuple[Running, int]]:
    """An exchange in a process of its own, whose memory can be measured, and its pid."""
    key = new_secret()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perak", "exchange", "--database", database_url, "--listen", "127.0.0.1:0",
        "--state-dir", str(state_dir), "--fund", "100", "--log-level", "warning",
        env=os.environ | {"PERAK_OPERATOR_KEY": key}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = ""
        while not url:
            line = (await process.stdout.readline()).decode()
            assert line, "it ended before it was ready"
            url = line.split()[-1] if line.startswith("exchange ready: ") else ""
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, verify=PLAIN
        ) as client:
            yield Running(url, key, cast(Any, None), client), process.pid
    finally:
        process.terminate()
        await process.wait()


def memory(pid: int, field: str = "VmHWM") -> int:
    """Bytes of the process: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def stuck_reader(exchange: Running, job: str) -> asyncio.StreamWriter:
    """A follower that asks and then reads nothing."""
    address = urlsplit(exchange.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1_024)
    head = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {exchange.key}\r\n\r\n"
    writer.write(head.encode())
    await reader.readline()
    return writer


@pytest.mark.timeout(240)
async def test_an_endless_binary_log_with_a_stuck_reader_is_kept_and_costs_no_memory(
    database_url: str, tmp_path: Path
) -> None:
    async with exchange_process(database_url, tmp_path / "exchange") as (exchange, pid):
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        job = await exchange.submit()
        order = await node.lease_of(job)
        at = now_ms()
        # Bytes that are no text: every one of the 256, NUL and broken UTF-8 included.
        part = os.urandom(LOG_CHUNK_BYTES_MAX)
        await node.report(started(order, at=at), chunk(order, 0, part))
        stuck = [await stuck_reader(exchange, job) for _ in range(4)]
        before, digest = memory(pid, "VmRSS"), hashlib.sha256(part)
        for offset in range(LOG_CHUNK_BYTES_MAX, LOG_BYTES, LOG_CHUNK_BYTES_MAX):
            await node.send_report(chunk(order, offset, part))
            digest.update(part)
        await node.until(lambda: node.ack >= node.seq)
        grown = memory(pid) - before
        print(f"{LOG_BYTES >> 20} MiB of log, {len(stuck)} stuck readers: {grown / 2**20:.1f} MiB more")
        assert grown < GROWTH_BYTES_MAX
        # The others are served meanwhile, and nothing of the log is lost.
        assert (await exchange.client.get("/v1/jobs")).status_code == 200
        await node.report(exited(order, started_at=at, log_bytes=LOG_BYTES))
        found = hashlib.sha256()
        async with exchange.client.stream("GET", f"/v1/jobs/{job}/log") as answer:
            async for piece in answer.aiter_bytes():
                found.update(piece)
        assert found.digest() == digest.digest()
        assert memory(pid) - before < GROWTH_BYTES_MAX
        for writer in stuck:
            writer.close()
        await node.close()
