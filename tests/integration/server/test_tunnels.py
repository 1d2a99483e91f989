"""Tunnels through a real exchange: joined, kept apart, ended with the run, and read by nobody on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from server_world import (
    PATIENCE_SECONDS,
    Running,
    ScriptedNode,
    exited,
    now_ms,
    running_exchange,
    started,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from perak.client import AsyncClient
from perak.client.config import Target
from perak.client.tunnels import TunnelLost, TunnelRefused, Tunnels
from perak.server.tunnels import PER_JOB_MAX, TunnelPeriods
from perak.wire import session as wire
from perak.wire.identity import chain_to_pem
from perak.wire.signing import SigningKey, sign
from perak.wire.tunnel import (
    ANSWER,
    CHUNK_BYTES,
    DATA,
    EOF,
    NODE_PATH,
    REQUEST,
    Channel,
    TunnelClosed,
    check_client,
    node_context,
)

PERIODS = TunnelPeriods(
    dial_again_seconds=0.2,
    dial_seconds_max=PATIENCE_SECONDS,
    idle_seconds_max=PATIENCE_SECONDS,
    look_seconds=0.2,
)
SECRET = b"nobody on the way may read this"


@dataclass
class Wire:
    """A node's WebSocket, whose messages are kept as the exchange passes them on."""

    socket: ClientConnection
    seen: list[bytes] = field(default_factory=list)

    async def recv(self) -> bytes:
        try:
            message = await self.socket.recv(decode=False)
        except ConnectionClosed as error:
            raise TunnelClosed(error.rcvd.reason if error.rcvd else "cut") from None
        assert isinstance(message, bytes)
        self.seen.append(message)
        return message

    async def send(self, message: bytes) -> None:
        self.seen.append(message)
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(message)


@dataclass
class Gate:
    """A node's end of tunnels without a sandbox behind it: it echoes."""

    node: ScriptedNode
    folder: Path
    key: SigningKey | None = None
    wires: list[Wire] = field(default_factory=list)

    async def next_dial(self, count: int = 1) -> wire.Dial:
        def dials() -> list[wire.Dial]:
            found = {each.tunnel: each for each in self.node.frames if isinstance(each, wire.Dial)}
            return list(found.values())

        await self.node.until(lambda: len(dials()) >= count)
        return dials()[count - 1]

    async def dial(self, dial: wire.Dial, *, node: ScriptedNode | None = None) -> Channel:
        """Come for a tunnel as the node does (or another one), up to the request."""
        caller = node or self.node
        path = NODE_PATH.format(tunnel=dial.tunnel)
        payload = wire.RequestPayload(node=caller.id, method="GET", path=path, at=now_ms())
        jws = sign(caller.key, wire.encode(payload), typ=wire.REQUEST_TYPE)
        url = (dial.url or self.node.exchange.url).replace("http", "ws", 1)
        headers = {"Authorization": f"Node {jws}"}
        socket = await connect(url + path, additional_headers=headers, compression=None, proxy=None)
        self.wires.append(Wire(socket))
        shown = self.folder / f"{len(self.wires)}.pem"
        shown.write_text(chain_to_pem(caller.chain))
        key = self.folder / f"{len(self.wires)}.key"
        (self.key or caller.key).save(key)
        context = node_context(chain_file=str(shown), key_file=str(key), client_certificate=dial.client)
        channel = Channel(self.wires[-1], context, server_side=True)
        check_client(await channel.handshake(), client_certificate=dial.client)
        assert await channel.receive_json(REQUEST) == {"do": "echo"}
        await channel.send_json(ANSWER, {})
        return channel

    async def echo(self, dial: wire.Dial) -> None:
        with contextlib.suppress(TunnelClosed):
            channel = await self.dial(dial)
            while True:
                kind, data = await channel.receive()
                await channel.send(kind, data)


@dataclass
class World:
    exchange: Running
    node: ScriptedNode
    gate: Gate
    job: str
    order: wire.LeaseOrder
    key: str

    def client(self, key: str | None = None) -> AsyncClient:
        return AsyncClient(target=Target(url=self.exchange.url, api_key=key or self.key))

    async def end_run(self) -> None:
        await self.node.report(exited(self.order, started_at=now_ms() - 1000, log_bytes=0))


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_exchange(database_url, tmp_path / "exchange", tunnels=PERIODS) as exchange:
        yield await world_of(exchange, tmp_path)


async def world_of(exchange: Running, folder: Path) -> World:
    node = await ScriptedNode.enrol(exchange)
    await node.open()
    body = {"name": "renter", "roles": ["renter"]}
    key = (await exchange.client.post("/v1/keys", json=body)).json()
    job = await exchange.submit(run="sleep 60")
    order = await node.lease_of(job)
    await node.report(started(order))
    return World(exchange, node, Gate(node, folder), job, order, key["secret"])


@contextlib.asynccontextmanager
async def echoing(world: World) -> AsyncIterator[Channel]:
    """A tunnel whose other end sends back what comes."""

    async def serve() -> None:
        await world.gate.echo(await world.gate.next_dial(len(world.gate.wires) + 1))

    serving, before = asyncio.create_task(serve()), len(world.gate.wires)
    try:
        async with world.client() as client, Tunnels(client, world.job).open({"do": "echo"}) as channel:
            yield channel
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for each in world.gate.wires[before:]:
            each.socket.transport.abort()


async def test_what_goes_through_arrives_whole_and_the_exchange_sees_only_ciphertext(world: World) -> None:
    blob = SECRET * (3 * CHUNK_BYTES // len(SECRET))
    received = b""
    async with echoing(world) as channel:

        async def send() -> None:
            for start in range(0, len(blob), CHUNK_BYTES):
                await channel.send(DATA, blob[start : start + CHUNK_BYTES])
            await channel.send(EOF)

        sending = asyncio.create_task(send())
        while (frame := await channel.receive())[0] != EOF:
            received += frame[1]
        await sending
    assert received == blob
    passed = b"".join(world.gate.wires[0].seen)
    assert len(passed) > 2 * len(blob)
    assert SECRET[:16] not in passed


async def test_nobody_but_the_one_who_asked_comes_to_a_tunnel(world: World) -> None:
    strangers_key = await world.exchange.new_project("strangers")
    stranger = await ScriptedNode.enrol(world.exchange, name="stranger")
    asked = await world.exchange.client_with(world.key).post(
        f"/v1/jobs/{world.job}/tunnels", json={"certificate": "of the client"}
    )
    path = asked.json()["path"]
    url = world.exchange.url.replace("http", "ws", 1)
    for headers in ({}, {"Authorization": f"Bearer {strangers_key}"}, {"Authorization": "Node x.y.z"}):
        with pytest.raises(InvalidStatus):
            await connect(url + path, additional_headers=headers, proxy=None)
    dial = await world.gate.next_dial()
    with pytest.raises(InvalidStatus):
        await world.gate.dial(dial, node=stranger)
    async with world.exchange.client_with(strangers_key) as client:
        refused = await client.post(f"/v1/jobs/{world.job}/tunnels", json={"certificate": "x"})
    assert refused.status_code == 404
    async with world.exchange.client_with(world.key) as client:
        (newest,) = (await client.get("/v1/trail", params={"limit": 1})).json()["items"]
    assert (newest["action"], newest["subject"]) == ("tunnel.open", world.job)


async def test_a_node_that_is_not_the_jobs_is_found_out_by_the_client(world: World) -> None:
    """An exchange that hands the tunnel to another node is caught, unless it also forges a certificate."""
    other = await ScriptedNode.enrol(world.exchange, name="other")

    async def impostor() -> None:
        dial = await world.gate.next_dial()
        tunnel = world.exchange.services.tunnels.find(dial.tunnel)
        assert tunnel is not None
        object.__setattr__(tunnel.target, "node", other.id)
        with contextlib.suppress(TunnelClosed):
            await world.gate.dial(dial, node=other)

    async with world.client() as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(impostor())
        with pytest.raises(TunnelRefused, match="somebody is in between"):
            async with Tunnels(client, world.job).open({"do": "echo"}):
                pytest.fail("it must not open")


@pytest.mark.parametrize("end", ["run", "key"])
async def test_a_tunnel_ends_with_its_run_and_with_its_key(world: World, end: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(pytest.raises(TunnelLost, match=f"the {end} "))
        channel = await stack.enter_async_context(echoing(world))
        await channel.send(DATA, b"before")
        assert await channel.receive() == (DATA, b"before")
        if end == "run":
            await world.end_run()
        else:
            keys = (await world.exchange.client.get("/v1/keys")).json()["items"]
            (key,) = [each["id"] for each in keys if each["name"] == "renter"]
            await world.exchange.client.delete(f"/v1/keys/{key}")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await channel.receive()


async def test_a_reader_that_stands_still_holds_up_nobody_else(world: World) -> None:
    async with echoing(world) as slow, echoing(world) as quick:
        flooding = asyncio.create_task(flood(slow))
        for number in range(50):
            await quick.send(DATA, str(number).encode())
            assert (await quick.receive())[1] == str(number).encode()
        assert not flooding.done(), "what nobody reads must not be taken for ever"
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def flood(channel: Channel) -> None:
    """More than all buffers on the way hold together."""
    for _ in range(1000):
        await channel.send(DATA, bytes(CHUNK_BYTES))


async def test_a_node_that_does_not_come_is_told_to_the_renter(world: World) -> None:
    async with world.client() as client:
        world.exchange.services.tunnels.periods = TunnelPeriods(dial_again_seconds=0.1, dial_seconds_max=0.5)
        with pytest.raises(TunnelLost, match="the node did not answer"):
            async with Tunnels(client, world.job).open({"do": "echo"}):
                pytest.fail("it must not open")
    assert len(world.exchange.services.tunnels) == 0


async def test_a_job_that_does_not_run_or_whose_provider_forbids_it_has_no_tunnel(world: World) -> None:
    async def ask(job: str) -> dict[str, Any]:
        body = {"certificate": "of the client"}
        answer = await world.exchange.client.post(f"/v1/jobs/{job}/tunnels", json=body)
        return {"status": answer.status_code, **answer.json()}

    waits = await world.exchange.submit(resources={"cpu": 1000})
    assert (await ask(waits))["code"] == "not_running"
    tunnels = world.exchange.services.tunnels
    for _ in range(PER_JOB_MAX):
        assert (await ask(world.job))["status"] == 201
    assert (await ask(world.job))["status"] == 429
    assert len(tunnels) == PER_JOB_MAX
    await world.end_run()
    assert (await ask(world.job))["code"] == "not_running"


async def test_with_two_replicas_the_node_comes_to_where_the_client_is(
    database_url: str, tmp_path: Path
) -> None:
    first = running_exchange(database_url, tmp_path / "exchange", tunnels=PERIODS)
    async with first as a:
        other = running_exchange(database_url, tmp_path / "exchange", tunnels=PERIODS, operator_key=a.key)
        async with other as b:
            world = await world_of(a, tmp_path)  # The node's session is on the one,
            world.exchange = b  # the client asks the other.
            async with echoing(world) as channel:
                await channel.send(DATA, b"across")
                assert await channel.receive() == (DATA, b"across")
            assert (await world.gate.next_dial()).url == b.url
            await world.node.close()
