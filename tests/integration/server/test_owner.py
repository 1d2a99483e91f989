"""What an owner does with its machines: pause, drain, revoke, and look at what they earned."""

from __future__ import annotations

import asyncio
from typing import Any

from server_world import PATIENCE_SECONDS, Running, ScriptedNode, enrolment, exited, now_ms, started

from perak.domain.units import parse_money
from perak.wire import session as wire
from perak.wire.invite import Invite
from perak.wire.signing import SigningKey


async def set_mode(exchange: Running, node: ScriptedNode, mode: str) -> dict[str, Any]:
    answer = await exchange.client.patch(f"/v1/nodes/{node.id}", json={"mode": mode})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def shown(exchange: Running, node: ScriptedNode) -> dict[str, Any]:
    return dict((await exchange.client.get(f"/v1/nodes/{node.id}")).json())


async def accepting(exchange: Running) -> list[bool]:
    return [offer["accepting"] for offer in (await exchange.client.get("/v1/offers")).json()["items"]]


async def test_a_paused_node_gets_no_job_until_it_is_resumed(exchange: Running, node: ScriptedNode) -> None:
    assert (await set_mode(exchange, node, "paused"))["mode"] == "paused"
    assert await accepting(exchange) == [False]
    job = await exchange.submit()
    quote = (await exchange.client.post("/v1/quotes", json={"job": {"name": "t", "run": "true"}})).json()
    assert not quote["offers"][0]["fits"]
    assert (await exchange.job(job))["state"] == "queued"
    await set_mode(exchange, node, "accepting")
    assert (await node.lease_of(job)).job == job


async def test_a_draining_node_ends_its_runs_and_is_drained_then(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    await node.report(started(order))
    assert (await set_mode(exchange, node, "draining"))["mode"] == "draining"
    waiting = await exchange.submit(name="second")
    await node.report(exited(order, started_at=now_ms() - 1000))
    assert (await exchange.job(job))["state"] == "succeeded"
    assert (await shown(exchange, node))["mode"] == "drained"
    assert (await set_mode(exchange, node, "draining"))["mode"] == "drained"
    assert (await exchange.job(waiting))["state"] == "queued"


async def test_a_node_that_is_drained_to_a_time_stops_what_still_runs_then(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit()
    await node.report(started(await node.lease_of(job)))
    path = f"/v1/nodes/{node.id}"
    assert (
        await exchange.client.patch(path, json={"mode": "paused", "within_seconds": 0})
    ).status_code == 400
    answer = await exchange.client.patch(path, json={"mode": "draining", "within_seconds": 0})
    assert answer.json()["reclaim_at"] is not None
    await node.until(lambda: any(each.stop_cause == "reclaimed" for each in node.leases))
    told = [event["detail"] for event in (await exchange.job(job))["events"]]
    assert any(line.startswith("the owner takes node back at ") for line in told), told


async def test_a_revoked_node_is_turned_away_at_once_and_its_name_is_free(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit()
    await node.lease_of(job)
    answer = await exchange.client.delete(f"/v1/nodes/{node.id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    await node.until(lambda: node.closed)
    assert [frame.retry for frame in node.frames if isinstance(frame, wire.Refused)] == [False]
    detail = await exchange.job(job)
    assert detail["runs"][0]["lease_state"] == "suspected"
    again = await ScriptedNode.enrol(exchange)
    assert again.id != node.id
    refused = await exchange.client.patch(f"/v1/nodes/{node.id}", json={"mode": "paused"})
    assert refused.status_code == 409


async def test_nobody_sets_or_revokes_another_s_node(exchange: Running, node: ScriptedNode) -> None:
    async with exchange.client_with(await exchange.new_project("other", roles=("provider",))) as other:
        assert (await other.patch(f"/v1/nodes/{node.id}", json={"mode": "paused"})).status_code == 404
        assert (await other.delete(f"/v1/nodes/{node.id}")).status_code == 404
    assert (await shown(exchange, node))["mode"] == "accepting"


async def test_one_invite_enrols_a_rack_and_a_name_twice_is_told_apart(exchange: Running) -> None:
    token = (await exchange.client.post("/v1/invites", json={"uses": 3, "ttl_seconds": 600})).json()["token"]
    secret = Invite.decode(token).secret

    async def enrol(name: str) -> tuple[int, str]:
        body = enrolment(secret, SigningKey.generate(), name)
        answer = await exchange.client.post("/v1/enrol", json=body)
        return answer.status_code, answer.json().get("detail", "")

    async with asyncio.timeout(PATIENCE_SECONDS):
        answers = await asyncio.gather(*(enrol(f"rack-{number}") for number in range(3)))
    assert {status for status, _ in answers} == {201}
    assert (await enrol("rack-9"))[0] == 401
    more = (await exchange.client.post("/v1/invites", json={"uses": 1})).json()["token"]
    secret = Invite.decode(more).secret
    status, detail = await enrol("rack-1")
    assert status == 409
    assert "--name" in detail
    assert (await enrol("rack-4"))[0] == 201, "a refused enrolment uses up nothing"


async def test_earnings_are_those_of_the_ledger_by_node_and_day(
    exchange: Running, node: ScriptedNode
) -> None:
    for _ in range(2):
        order = await node.lease_of(await exchange.submit())
        begun = now_ms()
        await asyncio.sleep(0.01)  # Every second begun is billed.
        await node.report(started(order, at=begun), exited(order, started_at=begun))
    found = (await exchange.client.get("/v1/earnings", params={"days": 7})).json()
    wallet = (await exchange.client.get("/v1/wallet")).json()
    receipts = (await exchange.client.get("/v1/receipts")).json()["items"]
    costs = sum(parse_money(receipt["cost"]) for receipt in receipts)
    assert found["earned"] == found["earned_in_all"] == found["balance"] == wallet["earned"]
    assert parse_money(found["earned"]) + parse_money(found["fee"]) == costs > 0
    assert found["paid_out"] == "0.00"
    assert [(each["name"], each["runs"], each["earned"]) for each in found["nodes"]] == [
        ("node", 2, found["earned"])
    ]
    assert [(each["runs"], each["fee"]) for each in found["days"]] == [(2, found["fee"])]


async def test_who_earned_nothing_sees_zero_and_a_renter_may_not_ask(exchange: Running) -> None:
    found = (await exchange.client.get("/v1/earnings")).json()
    assert (found["earned"], found["balance"], found["nodes"], found["days"]) == ("0.00", "0.00", [], [])
    async with exchange.client_with(await exchange.new_project("renter")) as renter:
        assert (await renter.get("/v1/earnings")).status_code == 403
