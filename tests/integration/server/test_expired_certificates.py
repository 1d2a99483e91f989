"""A node cut off for longer than its certificate lives is paid all the same, and its receipt proves it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from server_world import Running, ScriptedNode, exited, now_ms, started

from perak.wire import session as wire
from perak.wire.identity import chain_from_pem, issue_node_certificate, verify_chain
from perak.wire.receipts import verify_receipt
from perak.wire.signing import sign

ENDED = timedelta(seconds=2)
"""How long ago a certificate ended; certificates know whole seconds."""


SOON = timedelta(seconds=3)


def ends(node: ScriptedNode, lifetime: timedelta) -> tuple[bytes, ...]:
    """The certificate that the node has, as it would be if it ended after `lifetime`: nobody need wait."""
    now = datetime.now(UTC)
    leaf = issue_node_certificate(
        node.exchange.services.identity.authority,
        node_id=node.id,
        public_key=node.key.public_bytes,
        now=now,
        lifetime=lifetime,
        since=verify_chain(node.chain, at=now).not_before,
    )
    return (leaf, *node.chain[1:])


@pytest.fixture
async def away(exchange: Running) -> tuple[ScriptedNode, wire.LeaseOrder]:
    """A node that has hung up, and its run."""
    node = await ScriptedNode.enrol(exchange)
    await node.open()
    order = await node.lease_of(await exchange.submit(retry={"max_attempts": 1}))
    await node.report(started(order, at=now_ms() - 1000))
    await node.close()
    return node, order


async def receipts(exchange: Running) -> list[str]:
    items = (await exchange.client.get("/v1/receipts")).json()["items"]
    return [json.dumps((await exchange.client.get(f"/v1/receipts/{item['id']}")).json()) for item in items]


async def test_what_was_signed_after_the_certificates_end_counts_once_it_is_signed_anew(
    exchange: Running, away: tuple[ScriptedNode, wire.LeaseOrder]
) -> None:
    node, order = away
    node.chain = ends(node, -ENDED)
    signed_at = now_ms()  # The run ends while the node can reach nobody.
    end = exited(order, started_at=signed_at - 1000)

    back = ScriptedNode(exchange, node.id, node.key, node.chain, seq=node.seq)
    await back.open(offer=None)
    (welcome,) = [frame for frame in back.frames if isinstance(frame, wire.Welcome)]
    assert welcome.certificate is not None
    fresh = chain_from_pem(welcome.certificate)
    proven = verify_chain(fresh, at=datetime.fromtimestamp(signed_at / 1000, UTC))
    assert (proven.subject_id, proven.public_key) == (node.id, node.key.public_bytes)
    assert proven.not_before == verify_chain(node.chain, at=proven.not_before).not_before

    payload = wire.encode_report(seq=node.seq + 1, node=node.id, at=signed_at, body=end)
    back.seq = node.seq + 1
    await back.send_frame(wire.ReportFrame(jws=sign(node.key, payload, typ=wire.REPORT_TYPE, chain=fresh)))
    await back.until(lambda: back.ack >= back.seq)
    assert (await exchange.job(order.job))["state"] == "succeeded"
    (receipt,) = await receipts(exchange)
    found = verify_receipt(receipt, trusted_fingerprint=exchange.services.identity.authority.fingerprint)
    assert found.trusted, [check for check in found.checks if not check.passed]
    assert found.receipt.billed_seconds > 0
    assert found.receipt.payout_micros > 0
    await back.close()


async def test_an_agent_that_signs_on_with_an_expired_certificate_proves_nothing(
    exchange: Running, away: tuple[ScriptedNode, wire.LeaseOrder]
) -> None:
    """Its receipt would not verify: the run ends as if the node had been lost, and the session goes on."""
    node, order = away
    node.chain = ends(node, -ENDED)
    back = ScriptedNode(exchange, node.id, node.key, node.chain, seq=node.seq)
    await back.open(offer=None)
    await back.report(exited(order, started_at=now_ms() - 1000))
    job = await exchange.job(order.job)
    assert (job["state"], job["runs"][0]["cause"]) == ("failed", "node_lost")
    assert await receipts(exchange) == []
    await back.close()


async def test_a_certificate_that_ends_in_a_session_is_replaced_by_dialling_again(
    exchange: Running, away: tuple[ScriptedNode, wire.LeaseOrder]
) -> None:
    """No beat came in time to renew it; the report is not lost: it waits in the agent's journal."""
    node, order = away
    shown: list[str | None] = [""]
    while shown != [None]:  # A busy machine may take longer than the certificate lives.
        back = ScriptedNode(exchange, node.id, node.key, ends(node, SOON), seq=node.seq)
        await back.open(offer=None)
        shown = [frame.certificate for frame in back.frames if isinstance(frame, wire.Welcome)]
        if shown != [None]:
            await back.close()
    end = verify_chain(back.chain, at=datetime.now(UTC) - SOON).not_after
    await asyncio.sleep((end - datetime.now(UTC)).total_seconds() + 0.3)
    await back.send_report(exited(order, started_at=now_ms() - 1000))
    await back.until(lambda: back.closed)
    (refused,) = [frame for frame in back.frames if isinstance(frame, wire.Refused)]
    assert refused.retry
    assert (await exchange.job(order.job))["state"] == "running"
    await back.close()
