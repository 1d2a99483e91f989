"""The way of a job through the exchange: submitted, leased, reported, settled, receipted, followed."""

from __future__ import annotations

import asyncio
import base64
import json

from server_world import (
    PATIENCE_SECONDS,
    Event,
    Running,
    ScriptedNode,
    chunk,
    events_of,
    exited,
    now_ms,
    started,
)

from perak.domain.report import RunRefused
from perak.wire import session as wire
from perak.wire.api import Job, Page
from perak.wire.receipts import verify_receipt


async def run_to_end(node: ScriptedNode, job: str, log: bytes = b"hi\n") -> wire.LeaseOrder:
    """Play a run of `job` on the node: one second long, with a log."""
    order = await node.lease_of(job)
    at = now_ms() - 1000
    await node.report(
        started(order, at=at), chunk(order, 0, log), exited(order, started_at=at, log_bytes=len(log))
    )
    return order


async def test_a_job_is_matched_run_paid_and_receipted(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit(env={"A": "1"}, outputs=["out/"])
    order = await node.lease_of(job)
    assert (order.wanted, order.command, order.env) == ("run", "echo hi", {"A": "1"})
    await run_to_end(node, job)

    detail = await exchange.job(job)
    assert (detail["state"], detail["exit_code"], detail["held"]) == ("succeeded", 0, "0.00")
    steps = [event["detail"].split()[0] for event in detail["events"]]
    assert steps == ["queued", "leased", "running", "outputs", "succeeded"], "it left none, which is told"
    (run,) = detail["runs"]
    assert (run["state"], run["lease_state"], run["tier"]) == ("exited", "ended", "bubblewrap")

    receipt = (await exchange.client.get(f"/v1/receipts/{run['receipt']}")).json()
    authority = (await exchange.client.get("/v1/exchange")).json()["ca_fingerprint"]
    verified = verify_receipt(json.dumps(receipt), trusted_fingerprint=authority)
    assert verified.trusted, verified.checks
    assert verified.receipt.cost_micros > 0

    listed = Page[Job].model_validate((await exchange.client.get("/v1/jobs")).json())
    assert listed == Page[Job](items=[Job.model_validate(detail)], next_cursor=None)
    assert listed.items[0].node_name == "node"

    summary = (await exchange.client.get("/v1/receipts", params={"job": job})).json()["items"]
    assert [(item["id"], item["cost"]) for item in summary] == [(run["receipt"], detail["cost"])]
    await node.until(lambda: not node.leases)


async def test_the_wallet_shows_what_moved(exchange: Running, node: ScriptedNode) -> None:
    await run_to_end(node, await exchange.submit())
    wallet = (await exchange.client.get("/v1/wallet")).json()
    entries = (await exchange.client.get("/v1/wallet/entries")).json()["items"]
    assert wallet["held"] == "0.00"
    # The same project rents and provides here: it paid itself, less the fee.
    assert {entry["kind"] for entry in entries} == {"fund", "capture", "payout"}
    paid = sum(float(entry["amount"]) for entry in entries)
    assert paid == float(wallet["available"]) + float(wallet["earned"])


async def test_a_stream_tells_all_in_order_and_ends(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    await run_to_end(node, job, b"hello\nworld\n")
    events = await events_of(exchange.client, job)
    assert [event.name for event in events] == ["state", "state", "log", "state", "state", "end"]
    assert base64.b64decode(events[2].data["data"]) == b"hello\nworld\n"
    assert events[-1].data["job"]["state"] == "succeeded"


async def test_a_cut_stream_goes_on_exactly_there(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    at, log = now_ms() - 1000, bytes(range(256)) * 1024  # 256 KiB: several events
    await node.report(started(order, at=at))
    for offset in range(0, len(log), 60_000):
        await node.report(chunk(order, offset, log[offset : offset + 60_000]))
    await node.report(exited(order, started_at=at, log_bytes=len(log)))

    whole = await events_of(exchange.client, job)
    assert b"".join(base64.b64decode(e.data["data"]) for e in whole if e.name == "log") == log
    assert len({event.id for event in whole[:-1]}) == len(whole) - 1
    for cut in range(len(whole) - 1):
        assert await events_of(exchange.client, job, after=whole[cut].id) == whole[cut + 1 :]


async def test_a_follower_sees_what_comes_as_it_comes(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1000
    seen: list[bytes] = []

    def note(event: Event) -> bool:
        seen.append(base64.b64decode(event.data["data"]) if event.name == "log" else b"")
        return False

    following = asyncio.create_task(events_of(exchange.client, job, until=note))
    await node.report(started(order, at=at))
    for offset, line in ((0, b"one\n"), (4, b"two\n")):
        await node.report(chunk(order, offset, line))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line not in seen:
                await asyncio.sleep(0.01)
    await node.report(exited(order, started_at=at, log_bytes=8))
    assert (await following)[-1].name == "end"


async def test_the_log_is_there_as_bytes_too(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == b""
    await run_to_end(node, job, b"some\nlines\n")
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == b"some\nlines\n"
    assert (await exchange.client.get(f"/v1/jobs/{job}/log?attempt=7")).status_code == 404


async def test_cancelling_a_running_job_asks_its_node_to_stop(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 500
    await node.report(started(order, at=at))
    answer = await exchange.client.post(f"/v1/jobs/{job}/cancel")
    assert answer.json()["state"] == "cancelling"
    await node.until(lambda: node.leases and node.leases[0].wanted == "stop")
    assert node.leases[0].stop_cause == "cancelled"
    await node.report(exited(order, started_at=at, cause="cancelled", exit_code=None))
    assert (await exchange.job(job))["state"] == "cancelled"


async def test_a_refused_run_frees_the_money(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    refusal = RunRefused(
        run=order.run, lease=order.lease, epoch=order.epoch, cause="workdir", detail="cannot unpack"
    )
    await node.report(refusal)
    ended = await exchange.job(job)
    assert (ended["state"], ended["held"]) == ("failed", "0.00")
    assert "cannot unpack" in ended["reason"]


async def test_a_quote_names_what_fails(exchange: Running, node: ScriptedNode) -> None:
    body = {"job": {"name": "q", "run": "true", "resources": {"cpu": 64}, "limits": {"max_duration": "1h"}}}
    quote = (await exchange.client.post("/v1/quotes", json=body)).json()
    (offer,) = quote["offers"]
    assert (offer["fits"], offer["misfits"][0]["dimension"]) == (False, "cpu")
    body["job"]["resources"] = {"cpu": 1}  # type: ignore[index]
    quote = (await exchange.client.post("/v1/quotes", json=body)).json()
    (offer,) = quote["offers"]
    assert (offer["fits"], offer["per_hour"], offer["cost_max"], quote["hold"]) == (
        True,
        "0.36",
    ) + ("0.36",) * 2
    assert offer["carbon_grams_per_hour"] > 0
    assert "DE" in offer["carbon_source"]
    assert "trust" in quote
