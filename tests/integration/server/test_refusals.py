"""Whatever an exchange refuses of a node, its owner hears of: by a notice, and once by a webhook."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from server_world import OFFER, Running, ScriptedNode, enrolment, exited, now_ms, started

from perak.domain.report import OfferPosted, RunRefused
from perak.wire import session as wire
from perak.wire.invite import Invite
from perak.wire.signing import SigningKey, sign

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
async def webhook(exchange: Running) -> None:
    made = await exchange.client.post("/v1/webhooks", json={"url": "https://example.org/"})
    assert made.status_code == 201, made.text
    async with exchange.services.db.connection() as connection:
        await connection.execute(
            """create function later() returns trigger language plpgsql as
            $$begin new.next_at = new.next_at + interval '1 day'; return new; end$$;
            create trigger later before insert on webhook_delivery for each row execute function later()"""
        )  # Nothing is sent: what is queued is what this is about.


async def told(exchange: Running) -> list[tuple[str, str]]:
    async with exchange.services.db.connection() as connection:
        rows = await connection.fetch("select subject, body from webhook_delivery order by id")
    return [(row["subject"], json.loads(row["body"])["data"]["detail"]) for row in rows]


async def notice_of(exchange: Running, node: ScriptedNode) -> str:
    return str((await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"])


async def turned_away(node: ScriptedNode, **changes: Any) -> None:
    """Another agent of the same node dials, and says what it should not."""
    other = ScriptedNode(node.exchange, node.id, node.key, node.chain, agent_id="second")
    await other.dial(hello=lambda body: msgspec.structs.replace(body, **changes))
    await other.greeted()
    if not other.closed:
        await node.beat()
    await other.until(lambda: other.closed)


async def test_each_refusal_of_a_session_is_told_once(exchange: Running, node: ScriptedNode) -> None:
    for _ in range(2):
        await turned_away(node)
        assert "second agent" in await notice_of(exchange, node)
        await turned_away(node, protocol=99)
        assert "the agent 99; update" in await notice_of(exchange, node)
        await turned_away(node, at=now_ms() + DAY_MS)
        assert "ahead of" in await notice_of(exchange, node)
    assert [subject for subject, _ in await told(exchange)] == ["second_agent", "protocol", "clock"]


async def test_a_clock_that_jumps_and_a_frame_that_is_none_are_told(
    exchange: Running, node: ScriptedNode
) -> None:
    for count, (frame, subject) in enumerate(
        (
            (wire.encode(wire.Beat(at=now_ms() - DAY_MS)).decode(), "clock"),
            (wire.encode(wire.ReportFrame(jws="x.y.z")).decode(), "frame"),
        ),
        start=1,
    ):
        assert node._socket is not None
        await node._socket.send(frame)
        await node.until(lambda: node.closed)
        while len(found := await told(exchange)) < count:  # the owner is told while the session ends
            await asyncio.sleep(0.01)
        assert found[-1][0] == subject
        node.closed = False
        node.frames.clear()
        await node.open(offer=None)


async def test_reports_and_evidence_that_are_refused_are_told(exchange: Running, node: ScriptedNode) -> None:
    order = await node.lease_of(await exchange.submit())
    at = now_ms() - 1_000
    await node.report(OfferPosted(offer=replace(OFFER, cpu_milli=10**12)), started(order, at=at))
    node.chain = ()
    await node.report(exited(order, started_at=at))
    (report, what), (evidence, why) = await told(exchange)
    assert (report, evidence) == ("report", "evidence")
    assert "cpu_milli is 1000000000000" in what
    assert "RunExited was refused: its certificates prove nothing" in why


async def test_a_device_that_is_left_out_is_told_when_it_is_new(
    exchange: Running, node: ScriptedNode
) -> None:
    for left_out in ({"GPU-1": "it adds wrongly"}, {"GPU-1": "it adds wrongly", "GPU-2": "no kernel ran"}):
        await node.report(OfferPosted(offer=replace(OFFER, left_out=left_out)))
        await node.report(OfferPosted(offer=replace(OFFER, left_out=left_out, cpu_milli=1000)))
    assert await told(exchange) == [("device", "node: not offered: GPU-1: it adds wrongly")]
    assert await notice_of(exchange, node) == "not offered: GPU-2: no kernel ran"


async def test_a_run_that_a_node_can_not_start_and_a_late_signature_are_told(
    exchange: Running, node: ScriptedNode
) -> None:
    order = await node.lease_of(await exchange.submit(retry={"max_attempts": 1}))
    path = f"/v1/node/leases/{order.lease}/workdir"
    payload = wire.RequestPayload(node=node.id, method="GET", path=path, at=now_ms() - DAY_MS)
    late = sign(node.key, wire.encode(payload), typ=wire.REQUEST_TYPE)
    answer = await exchange.client.get(path, headers={"Authorization": f"Node {late}"})
    assert answer.status_code == 401
    fields = {"run": order.run, "lease": order.lease, "epoch": order.epoch}
    await node.report(RunRefused(**fields, cause="sandbox", detail="no user namespaces"))  # type: ignore[arg-type]
    (transfer, _), (run, why) = await told(exchange)
    assert (transfer, run) == ("transfer", "run")
    assert why == "node: a run could not be started: no user namespaces"


async def test_whoever_made_an_invite_hears_of_machines_that_it_does_not_enrol(
    exchange: Running, node: ScriptedNode
) -> None:
    token = (await exchange.client.post("/v1/invites", json={})).json()["token"]
    secret = Invite.decode(token).secret

    async def enrol(name: str, secret: str = secret) -> int:
        body = enrolment(secret, SigningKey.generate(), name)
        return (await exchange.client.post("/v1/enrol", json=body)).status_code

    assert await enrol("node") == 409, "the name is taken"
    (only,) = await told(exchange)
    assert only[0] == "enrolment"
    assert "a machine named node could not be enrolled: this project has a node named 'node'" in only[1]
    assert await enrol("other") == 201
    assert await enrol("third") == 401, "the invite is used up"
    assert await enrol("stranger", "never made") == 401
    assert len(await told(exchange)) == 1, "once in ten minutes"
