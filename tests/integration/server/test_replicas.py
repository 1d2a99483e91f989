"""Two replicas on one PostgreSQL share the work, and one is restarted while jobs flow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
from server_world import (
    PATIENCE_SECONDS,
    PLAIN,
    Event,
    Running,
    ScriptedNode,
    chunk,
    events_of,
    exited,
    now_ms,
    started,
)

from perak.adapters.db.audit import open_books
from perak.server.audit import audit
from perak.server.auth import new_secret

JOBS = 12
START_SECONDS = 60


@contextlib.asynccontextmanager
async def replica(url: str, state_dir: Path, key: str, *, port: int = 0) -> AsyncIterator[str]:
    """A `perak exchange` as a process, and its URL; ended in order."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perak", "exchange", "--listen", f"127.0.0.1:{port}"),
        *("--state-dir", str(state_dir), "--fund", "100", "--log-level", "error"),
        env={**os.environ, "PERAK_DATABASE_URL": url, "PERAK_OPERATOR_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            while b"exchange ready: " not in (line := await process.stdout.readline()):
                assert line, "it ended before it was ready"
        yield line.decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def play(node: ScriptedNode, stop: asyncio.Event) -> None:
    """Run whatever the node is told to; dial again when the exchange went away."""
    done: set[str] = set()
    await node.open()
    while not stop.is_set():
        if node.closed:
            node.closed = False
            with contextlib.suppress(OSError, TimeoutError):
                await node.dial()
        for order in node.leases:
            if order.run not in done and not node.closed:
                done.add(order.run)
                at = now_ms() - 1000
                for body in (
                    started(order, at=at),
                    chunk(order, 0, b"hi\n"),
                    exited(order, started_at=at, log_bytes=3),
                ):
                    await node.send_report(body)
        await asyncio.sleep(0.02)
    await node.close()


async def test_a_rolling_restart_under_load_loses_and_doubles_nothing(
    database_url: str, tmp_path: Path
) -> None:
    key, state = new_secret(), tmp_path / "exchange"
    headers = {"Authorization": f"Bearer {key}"}
    async with contextlib.AsyncExitStack() as stack:
        steady = await stack.enter_async_context(replica(database_url, state, key))
        restarts = replica(database_url, state, key)
        rolled = await restarts.__aenter__()
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_SECONDS, verify=PLAIN)
            )
            for url in (steady, rolled)
        ]
        worlds = [Running(str(client.base_url), key, cast(Any, None), client) for client in clients]
        nodes = [await ScriptedNode.enrol(worlds[0], name=f"node-{i}") for i in range(2)]
        stop = asyncio.Event()
        playing = [asyncio.create_task(play(node, stop)) for node in nodes]

        jobs = [await worlds[i % 2].submit(name=f"job-{i}") for i in range(JOBS // 2)]
        waits = await worlds[1].submit(name="waits", resources={"cpu": 1000})
        cut = await events_of(clients[1], waits, until=lambda event: event.name == "state")
        await restarts.__aexit__(None, None, None)
        # While the other is away, all goes on here; a follower goes on here from where it was cut.
        jobs += [await worlds[0].submit(name=f"away-{i}") for i in range(JOBS // 4)]
        port = int(rolled.rpartition(":")[2])
        await stack.enter_async_context(replica(database_url, state, key, port=port))
        jobs += [await worlds[1].submit(name=f"back-{i}") for i in range(JOBS // 4)]
        await clients[0].post(f"/v1/jobs/{waits}/cancel")
        rest: list[Event] = await events_of(clients[1], waits, after=cut[-1].id)
        assert [event.name for event in rest] == ["state", "end"]
        for number, job in enumerate(jobs):
            events = await events_of(clients[number % 2], job)
            assert events[-1].data["job"]["state"] == "succeeded", events[-1]
        receipts = (await clients[0].get("/v1/receipts", params={"limit": 100})).json()["items"]
        assert Counter(item["job"] for item in receipts) == Counter(jobs)
        stop.set()
        await asyncio.gather(*playing)
    async with open_books(database_url) as books:
        report = await audit(books)
    assert report.sound, list(report.lines())
