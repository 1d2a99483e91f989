"""Owners are told: what arrives is signed, comes again until it is taken, and shows in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server_world import PATIENCE_SECONDS, Running, ScriptedNode, running_exchange

from perak.app.alerts import tell
from perak.domain.report import RunRefused
from perak.server import clock
from perak.server.webhooks import WAITS_SECONDS, Sender, deliver_due, signature


@dataclass
class Receiver:
    """A small HTTP server that keeps what it gets; `statuses` are its next answers, then 200."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if self.statuses else 200
        location = "location: http://127.0.0.1:1/\r\n" if status == 302 else ""
        writer.write(
            f"HTTP/1.1 {status} X\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()
        self.changed.set()

    async def received(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.got) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange", webhooks_to_private=True) as running:
        yield running


async def add(exchange: Running, receiver: Receiver, **more: Any) -> dict[str, Any]:
    body = {"url": f"http://localhost:{receiver.port}/hook"} | more
    answer = await exchange.client.post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def shown(exchange: Running, id: str, *, until: str | None = None) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = (await exchange.client.get(f"/v1/webhooks/{id}")).json()["deliveries"]
            if until is None or (found and found[0]["state"] == until):
                return list(found)
            await asyncio.sleep(0.05)


async def test_a_message_is_signed_by_the_secret_that_was_shown_once(
    exchange: Running, receiver: Receiver
) -> None:
    made = await add(exchange, receiver)
    assert (await exchange.client.post(f"/v1/webhooks/{made['id']}/test")).status_code == 200
    await receiver.received(1)
    headers, body = receiver.got[0]
    expected = signature(
        made["secret"], id=headers["webhook-id"], timestamp=int(headers["webhook-timestamp"]), body=body
    )
    assert headers["webhook-signature"] == expected
    assert headers["host"] == f"localhost:{receiver.port}"
    assert json.loads(body)["type"] == "webhook.test"
    assert (await shown(exchange, made["id"], until="delivered"))[0]["answer"] == "HTTP 200"
    async with exchange.services.db.connection() as connection:
        sealed = await connection.fetchval("select secret_sealed from webhook")
    assert made["secret"].encode() not in sealed
    assert "secret" not in (await exchange.client.get("/v1/webhooks")).text


async def test_a_message_comes_again_with_the_same_id_and_follows_no_redirect(
    exchange: Running, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302]
    made = await add(exchange, receiver)
    await exchange.client.post(f"/v1/webhooks/{made['id']}/test")
    for count, answer in enumerate(("HTTP 500", "HTTP 302", "HTTP 200"), 1):
        await receiver.received(count)
        await until_answered(exchange, made["id"], answer)
        await due_now(exchange)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    delivery = (await shown(exchange, made["id"], until="delivered"))[0]
    assert (delivery["attempts"], len(receiver.got)) == (3, 3)


async def test_it_is_given_up_after_the_last_wait_and_at_once_when_told_so(
    exchange: Running, receiver: Receiver
) -> None:
    made = await add(exchange, receiver)
    receiver.statuses = [410]
    await exchange.client.post(f"/v1/webhooks/{made['id']}/test")
    assert (await shown(exchange, made["id"], until="failed"))[0]["attempts"] == 1
    async with exchange.services.db.connection() as connection:
        await connection.execute(
            """update webhook_delivery set state = 'waiting', ended_at = null, attempts = $1,
            next_at = now() - interval '1 s'""",
            len(WAITS_SECONDS),
        )
    receiver.statuses = [500]
    assert (await shown(exchange, made["id"], until="failed"))[0]["attempts"] == len(WAITS_SECONDS) + 1


async def test_two_replicas_share_the_messages_and_send_none_twice(
    exchange: Running, node: ScriptedNode, receiver: Receiver
) -> None:
    made = await add(exchange, receiver, events=["node.offline"])
    async with exchange.services.db.transaction() as tx:
        record = await tx.nodes.get(node.id)
        assert record is not None
        for number in range(20):
            await tell(tx, node=record, event="node.offline", detail=str(number), now=clock.now())
    sender = Sender(to_private=True)
    while any(await asyncio.gather(*(deliver_due(exchange.services, sender=sender) for _ in range(3)))):
        pass
    await receiver.received(20)
    await shown(exchange, made["id"], until="delivered")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == len(receiver.got) == 20


async def test_an_owner_hears_of_its_own_node_once_in_a_while(
    exchange: Running, node: ScriptedNode, receiver: Receiver
) -> None:
    await add(exchange, receiver)
    for _ in range(2):
        order = await node.lease_of(await exchange.submit())
        refusal = RunRefused(
            run=order.run, lease=order.lease, epoch=order.epoch, cause="sandbox", detail="no user namespaces"
        )
        await node.report(refusal)
    await receiver.received(1)
    message = json.loads(receiver.got[0][1])
    assert (message["type"], message["data"]["node"]) == ("node.refused", node.id)
    assert "no user namespaces" in message["data"]["detail"]
    async with exchange.services.db.connection() as connection:
        assert await connection.fetchval("select count(*) from webhook_delivery") == 1


async def test_gone_and_back_are_told_in_turn(
    exchange: Running, node: ScriptedNode, receiver: Receiver
) -> None:
    await add(exchange, receiver, events=["node.offline", "node.online"])
    await node.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not receiver.got:  # The last sign of life may be written down meanwhile.
            async with exchange.services.db.connection() as connection:
                await connection.execute(
                    "update node set state = 'suspected', last_seen = $1 where state <> 'offline'",
                    clock.now() - timedelta(hours=1),
                )
            await asyncio.sleep(0.1)
    await node.open(offer=None)
    await receiver.received(2)
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["node.offline", "node.online"]


async def test_only_a_public_address_may_be_told_by_default(database_url: str, tmp_path: Path) -> None:
    async with running_exchange(database_url, tmp_path / "exchange") as running:
        for url in ("http://example.org", "https://127.0.0.1/", "https://[fd00::1]/"):
            assert (await running.client.post("/v1/webhooks", json={"url": url})).status_code == 400
        made = (await running.client.post("/v1/webhooks", json={"url": "https://localhost/x"})).json()
        await running.client.post(f"/v1/webhooks/{made['id']}/test")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := (await shown(running, made["id"]))[0]["answer"]) is None:
                await asyncio.sleep(0.05)
        assert "no public address" in answer


async def until_answered(exchange: Running, id: str, answer: str) -> None:
    """Until the exchange has written down what its last message was answered."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await shown(exchange, id))[0]["answer"] != answer:
            await asyncio.sleep(0.05)


async def due_now(exchange: Running) -> None:
    async with exchange.services.db.connection() as connection:
        await connection.execute("update webhook_delivery set next_at = now() where state = 'waiting'")
