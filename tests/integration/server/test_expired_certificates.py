"""A node cut off for longer than its certificate lives is paid all the same, and its receipt proves it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from server_world import Running, ScriptedNode, exited, now_ms, running_exchange, started

from perak.app.periods import Periods
from perak.wire import session as wire
from perak.wire.identity import chain_from_pem, verify_chain
from perak.wire.receipts import verify_receipt
from perak.wire.signing import sign

LIFE_SECONDS = 2.0


async def cut_off_until_expiry(node: ScriptedNode) -> None:
    await node.close()
    end = verify_chain(node.chain, at=datetime.now(UTC)).not_after
    await asyncio.sleep((end - datetime.now(UTC)).total_seconds() + 0.3)


async def receipts(exchange: Running) -> list[str]:
    items = (await exchange.client.get("/v1/receipts")).json()["items"]
    return [json.dumps((await exchange.client.get(f"/v1/receipts/{item['id']}")).json()) for item in items]


async def test_what_was_signed_after_the_certificates_end_counts_once_it_is_signed_anew(
    database_url: str, state_dir: Path
) -> None:
    periods = Periods(certificate_seconds=LIFE_SECONDS)
    async with running_exchange(database_url, state_dir, periods=periods) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        order = await node.lease_of(await exchange.submit())
        began = now_ms() - 1000
        await node.report(started(order, at=began))
        await cut_off_until_expiry(node)
        signed_at = now_ms()  # The run ends while the node can reach nobody.
        end = exited(order, started_at=began)

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
        await back.send_frame(
            wire.ReportFrame(jws=sign(node.key, payload, typ=wire.REPORT_TYPE, chain=fresh))
        )
        await back.until(lambda: back.ack >= back.seq)
        assert (await exchange.job(order.job))["state"] == "succeeded"
        (receipt,) = await receipts(exchange)
        found = verify_receipt(receipt, trusted_fingerprint=exchange.services.identity.authority.fingerprint)
        assert found.trusted, [check for check in found.checks if not check.passed]
        assert found.receipt.billed_seconds >= LIFE_SECONDS
        assert found.receipt.payout_micros > 0
        await back.close()


async def test_an_agent_that_signs_on_with_an_expired_certificate_proves_nothing(
    database_url: str, state_dir: Path
) -> None:
    """Its receipt would not verify: the run ends as if the node had been lost, and the session goes on."""
    periods = Periods(certificate_seconds=LIFE_SECONDS)
    async with running_exchange(database_url, state_dir, periods=periods) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        order = await node.lease_of(await exchange.submit(retry={"max_attempts": 1}))
        await node.report(started(order))
        await cut_off_until_expiry(node)
        back = ScriptedNode(exchange, node.id, node.key, node.chain, seq=node.seq)
        await back.open(offer=None)
        await back.report(exited(order, started_at=now_ms() - 1000))
        job = await exchange.job(order.job)
        assert (job["state"], job["runs"][0]["cause"]) == ("failed", "node_lost")
        assert await receipts(exchange) == []
        await back.close()


async def test_a_certificate_that_ends_in_a_session_is_replaced_by_dialling_again(
    database_url: str, state_dir: Path
) -> None:
    """No beat came in time to renew it; the report is not lost: it waits in the agent's journal."""
    periods = Periods(certificate_seconds=LIFE_SECONDS)
    async with running_exchange(database_url, state_dir, periods=periods) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        order = await node.lease_of(await exchange.submit())
        await node.report(started(order))
        end = verify_chain(node.chain, at=datetime.now(UTC)).not_after
        await asyncio.sleep((end - datetime.now(UTC)).total_seconds() + 0.3)
        await node.send_report(exited(order, started_at=now_ms() - 1000))
        await node.until(lambda: node.closed)
        (refused,) = [frame for frame in node.frames if isinstance(frame, wire.Refused)]
        assert refused.retry
        assert (await exchange.job(order.job))["state"] == "running"
        await node.close()
