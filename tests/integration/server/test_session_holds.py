"""A node has one session, whichever replica its agents dial; a replica that is gone holds none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest
from server_world import Running, ScriptedNode, running_exchange
from websockets.exceptions import ConnectionClosed

from perak.app.periods import Periods
from perak.server.auth import new_secret
from perak.wire import session as wire

START_SECONDS = 60


def refusals(node: ScriptedNode) -> list[bool]:
    return [frame.retry for frame in node.frames if isinstance(frame, wire.Refused)]


async def notice_of(exchange: Running, node: ScriptedNode) -> str | None:
    notice: str | None = (await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"]
    return notice


@pytest.fixture
def key() -> str:
    return new_secret()


async def test_a_second_agent_is_refused_by_another_replica_too(
    database_url: str, state_dir: Path, key: str
) -> None:
    async with (
        running_exchange(database_url, state_dir, operator_key=key) as one,
        running_exchange(database_url, state_dir, operator_key=key) as other,
    ):
        node = await ScriptedNode.enrol(one)
        await node.open()
        second = ScriptedNode(other, node.id, node.key, node.chain, agent_id="second")
        await second.dial()
        while not second.closed:  # It waits for the first to speak.
            await node.beat()
            await asyncio.sleep(0.1)
        assert refusals(second) == [True]
        assert "second agent" in (await notice_of(other, node) or "")
        assert not node.closed
        await node.close()
        third = ScriptedNode(other, node.id, node.key, node.chain, agent_id="third")
        await third.open(offer=None)
        await third.close()


async def test_the_same_agent_takes_its_session_to_another_replica(
    database_url: str, state_dir: Path, key: str
) -> None:
    async with (
        running_exchange(database_url, state_dir, operator_key=key) as one,
        running_exchange(database_url, state_dir, operator_key=key) as other,
    ):
        node = await ScriptedNode.enrol(one)
        await node.open()
        again = ScriptedNode(other, node.id, node.key, node.chain)
        await again.open(offer=None)
        with contextlib.suppress(ConnectionClosed):  # On a busy machine it was told before.
            await node.beat()  # Something comes of the old connection yet: it is not the node's any more.
        await node.until(lambda: node.closed)
        assert await notice_of(other, node) is None
        job = await one.submit()
        assert (await again.lease_of(job)).job == job
        await again.close()


async def test_a_replica_that_was_killed_keeps_no_node_out(
    database_url: str, state_dir: Path, key: str
) -> None:
    """With beats so far apart, only its lost connection to the database says that it is dead."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perak", "exchange", "--listen", "127.0.0.1:0", "--beat", "60"),
        *("--state-dir", str(state_dir), "--log-level", "error"),
        env={**os.environ, "PERAK_DATABASE_URL": database_url, "PERAK_OPERATOR_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            while b"exchange ready: " not in (line := await process.stdout.readline()):
                assert line, "it ended before it was ready"
        url = line.decode().split()[-1]
        periods = Periods(beat_seconds=60)
        async with running_exchange(database_url, state_dir, operator_key=key, periods=periods) as other:
            there = Running(url, key, other.services, other.client)
            node = await ScriptedNode.enrol(other)
            node.exchange = there
            await node.open()
            process.kill()
            await node.until(lambda: node.closed)
            restarted = ScriptedNode(other, node.id, node.key, node.chain, agent_id="restarted")
            await restarted.open(offer=None)
            assert refusals(restarted) == []
            assert await notice_of(other, node) is None
            await restarted.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
