"""Logs of ended runs move to the blobs, and nobody who reads them can tell."""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server_world import Running, ScriptedNode, chunk, events_of, exited, now_ms, running_exchange, started

from perak.server import clock, logs
from perak.server.follow import Place, follow
from perak.server.keeping import evict_round
from perak.server.settings import Quotas
from perak.wire.session import LOG_CHUNK_BYTES_MAX

LOG = os.urandom(100_000) + b"a line\n" * 60_000 + b"the end"
"""More than a block, cut elsewhere than the blocks are."""


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    quotas = Quotas(project_bytes=1000, node_bytes=1000, kept_seconds=0.0)
    async with running_exchange(database_url, tmp_path / "exchange", quotas=quotas) as running:
        yield running


async def logged(exchange: Running, node: ScriptedNode, log: bytes = LOG) -> str:
    """A job that has ended with this log."""
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms()
    await node.report(started(order, at=at))
    for offset in range(0, len(log), LOG_CHUNK_BYTES_MAX - 999):
        await node.report(chunk(order, offset, log[offset : offset + LOG_CHUNK_BYTES_MAX - 999]))
    await node.report(exited(order, started_at=at))
    return job


async def archive(exchange: Running) -> None:
    later = clock.now() + timedelta(seconds=1)
    await logs.archive_round(exchange.services, after=None, before=later)


async def rows(exchange: Running, table: str) -> list[Any]:
    async with exchange.services.db.connection() as connection:
        return list(await connection.fetch(f"select * from {table}"))


async def test_a_log_reads_the_same_from_every_offset_after_it_moved(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await logged(exchange, node)
    before = await events_of(exchange.client, job)
    await archive(exchange)
    assert await rows(exchange, "log_chunk") == []
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == LOG
    assert joined(await events_of(exchange.client, job)) == joined(before) == LOG
    (run,) = await rows(exchange, "log_archive")
    for offset in (0, 1, 99_999, logs.BLOCK_BYTES - 1, logs.BLOCK_BYTES, len(LOG) - 1, len(LOG)):
        read = await logs.read_log(exchange.services, run["run_id"], offset=offset, limit_bytes=70_000)
        assert read == LOG[offset : offset + 70_000][: len(read)]
        assert bool(read) == (offset < len(LOG))
    stored = await exchange.services.blobs.get(run["digest"])
    assert gzip.decompress(b"".join([piece async for piece in stored.chunks])) == LOG, "zcat reads it too"
    assert stored.size_bytes > 1000, "a quota refuses uploads, and never a log"
    assert await evict_round(exchange.services) == 0, "it is referred to"


async def test_a_follower_does_not_see_the_move(exchange: Running, node: ScriptedNode) -> None:
    job = await logged(exchange, node)
    (project,) = {row["project_id"] for row in await rows(exchange, "job")}
    followed = []
    async for event in follow(exchange.services, job, project=project, place=Place()):
        followed.append(event)
        if event.event == "log" and len(followed) < 10 and not await rows(exchange, "log_archive"):
            await archive(exchange)
    assert followed[-1].event == "end"
    assert await rows(exchange, "log_chunk") == []
    sent = [event for event in followed if event.event == "log"]
    assert sum(len(str(event.data)) for event in sent) > len(LOG), "in base64"
    assert str(followed[-1].id).split(".")[1] == str(len(LOG))


async def test_a_crash_between_blob_and_row_loses_nothing_and_the_next_try_ends_it(
    exchange: Running, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await logged(exchange, node)

    async def die(*_: object) -> bool:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(logs, "move", die)
        with pytest.raises(ConnectionError):
            await archive(exchange)
    assert await rows(exchange, "log_archive") == []
    assert await rows(exchange, "blob") == []
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == LOG
    await archive(exchange)
    assert len(await rows(exchange, "log_archive")) == 1
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == LOG


async def test_replicas_that_move_a_log_at_once_move_it_once_and_small_logs_stay(
    exchange: Running, node: ScriptedNode
) -> None:
    job, small = await logged(exchange, node), await logged(exchange, node, b"hello\n")
    await asyncio.gather(*(archive(exchange) for _ in range(4)))
    assert len(await rows(exchange, "log_archive")) == 1
    assert [bytes(row["data"]) for row in await rows(exchange, "log_chunk")] == [b"hello\n"]
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == LOG
    assert (await exchange.client.get(f"/v1/jobs/{small}/log")).content == b"hello\n"


async def test_what_comes_after_the_move_is_read_behind_it(exchange: Running, node: ScriptedNode) -> None:
    job = await logged(exchange, node)
    await archive(exchange)
    (run,) = await rows(exchange, "log_archive")
    async with exchange.services.db.transaction() as tx:
        await tx.leases.append_log(run["run_id"], offset=len(LOG), data=b" and more")
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == LOG + b" and more"


def joined(events: list[Any]) -> bytes:
    return b"".join(base64.b64decode(event.data["data"]) for event in events if event.name == "log")
