"""A node that is wrong, broken or hostile, over a real session: refused with a reason, and only it pays."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import msgspec
from server_world import OFFER, Running, ScriptedNode, chunk, exited, now_ms, started

from perak.domain.plausible import CLOCK_SKEW_SECONDS_MAX
from perak.domain.report import OfferPosted, OutputBlob
from perak.wire import session as wire
from perak.wire.receipts import verify_receipt
from perak.wire.signing import MAX_PAYLOAD_BYTES, SigningKey, sign

DAY_MS = 86_400_000


def refusals(node: ScriptedNode) -> list[wire.Refused]:
    return [frame for frame in node.frames if isinstance(frame, wire.Refused)]


async def notice_of(exchange: Running, node: ScriptedNode) -> str:
    return str((await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"])


async def raw(node: ScriptedNode, payload: bytes, *, key: SigningKey | None = None, **rest: Any) -> None:
    """Send a report whose payload is any bytes."""
    assert node._socket is not None
    rest = {"typ": wire.REPORT_TYPE, "chain": node.chain} | rest
    jws = sign(key or node.key, payload, **rest)
    await node._socket.send(wire.encode(wire.ReportFrame(jws=jws)).decode())


async def test_a_clock_a_day_off_is_refused_with_the_reason(exchange: Running, node: ScriptedNode) -> None:
    await node.close()
    for off, word in ((DAY_MS, "ahead of"), (-DAY_MS, "behind"), (10**40, "ahead of")):
        wrong = ScriptedNode(exchange, node.id, node.key, node.chain)
        await wrong.dial(hello=lambda body, off=off: msgspec.structs.replace(body, at=now_ms() + off))  # type: ignore[misc]
        await wrong.until(lambda wrong=wrong: wrong.closed)
        (refused,) = refusals(wrong)
        assert refused.retry
        assert word in refused.reason
        assert "set it" in refused.reason
        assert word in await notice_of(exchange, node)
    right = ScriptedNode(exchange, node.id, node.key, node.chain)
    await right.open()
    # It was right, and jumps: what it signs from now on would prove nothing.
    assert right._socket is not None
    await right._socket.send(wire.encode(wire.Beat(at=now_ms() - DAY_MS)).decode())
    await right.until(lambda: right.closed)
    assert "behind" in refusals(right)[0].reason


async def test_a_second_agent_is_refused_and_the_owner_told(exchange: Running, node: ScriptedNode) -> None:
    second = ScriptedNode(exchange, node.id, node.key, node.chain, agent_id="second")
    await second.dial()
    await second.greeted()
    await node.beat()
    await second.until(lambda: second.closed)
    assert "another agent" in refusals(second)[0].reason
    assert "second agent" in await notice_of(exchange, node)
    await node.report(OfferPosted(offer=OFFER))  # The first is not disturbed.


async def test_an_end_outside_its_certificate_settles_nothing_and_frees_the_job(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit(retry={"max_attempts": 1})
    order = await node.lease_of(job)
    at = now_ms() - 1_000
    await node.report(started(order, at=at))
    node.seq += 1
    payload = wire.encode_report(
        seq=node.seq, node=node.id, at=now_ms() - DAY_MS, body=exited(order, started_at=at)
    )
    await raw(node, payload)
    await node.until(lambda: node.ack >= node.seq)
    detail = await exchange.job(job)
    assert (detail["state"], detail["cost"], detail["held"]) == ("failed", "0.00", "0.00")
    assert "certificates prove nothing" in json.dumps(detail["events"])
    # The next job of the same node goes well, and its receipt verifies.
    await _goes_well(exchange, node)


async def test_an_end_without_certificates_or_with_anothers_is_no_evidence(
    exchange: Running, node: ScriptedNode
) -> None:
    other = await ScriptedNode.enrol(exchange, name="other")
    for chain in ((), other.chain, node.chain[::-1]):
        job = await exchange.submit(retry={"max_attempts": 1})
        order = await node.lease_of(job)
        node.seq += 1
        end = exited(order, started_at=now_ms() - 1_000)
        payload = wire.encode_report(seq=node.seq, node=node.id, at=now_ms(), body=end)
        await raw(node, payload, chain=chain)
        await node.until(lambda: node.ack >= node.seq)
        assert (await exchange.job(job))["state"] == "failed"
    await _goes_well(exchange, node)


def envelope(by: ScriptedNode, /, **changes: Any) -> bytes:
    fields = {
        "seq": by.seq + 1, "node": by.id, "at": now_ms(), "type": "offer_posted",
        "body": {"offer": msgspec.to_builtins(OFFER)},
    }  # fmt: skip
    return json.dumps(fields | changes).encode()


async def test_what_is_no_report_ends_the_session_and_nothing_else(
    exchange: Running, node: ScriptedNode
) -> None:
    good = await ScriptedNode.enrol(exchange, name="good")
    await good.open()
    stranger = SigningKey.generate()
    cases: tuple[tuple[bytes, dict[str, Any]], ...] = (
        (envelope(node), {"key": stranger}),
        (envelope(node, node=good.id), {}),
        (envelope(node), {"typ": wire.HELLO_TYPE}),
        (envelope(node, type="unheard_of"), {}),
        (envelope(node, body={"offer": {"region": 5}}), {}),
        (envelope(node, seq="1"), {}),
        (envelope(node, seq=10**30), {}),
        (envelope(node, seq=node.seq + 7), {}),
        (b"\xff\xfe not JSON", {}),
        (b"[" * 100_000, {}),
        (b"x" * (MAX_PAYLOAD_BYTES + 5_000), {}),
    )
    for payload, rest in cases:
        bad = ScriptedNode(exchange, node.id, node.key, node.chain)
        await bad.open(offer=None)
        try:
            await raw(bad, payload, **rest)
        except Exception:  # our own library won't sign it: it is sent as it is
            assert bad._socket is not None
            jws = f"e30.{'A' * (2 * MAX_PAYLOAD_BYTES)}.AAAA"
            await bad._socket.send(wire.encode(wire.ReportFrame(jws=jws)).decode())
        await bad.until(lambda bad=bad: bad.closed)
    for text in (
        "",
        "null",
        "{}",
        '{"type":"hello","jws":"x"}',
        "[" * 5_000,
        '{"type":"beat","at":1e999}',
        b"\xff",
    ):
        bad = ScriptedNode(exchange, node.id, node.key, node.chain)
        await bad.open(offer=None)
        assert bad._socket is not None
        await bad._socket.send(text)
        await bad.until(lambda bad=bad: bad.closed)
    assert not good.closed
    await good.report(OfferPosted(offer=OFFER))
    # It lost nothing: it goes on from what was acknowledged.
    back = ScriptedNode(exchange, node.id, node.key, node.chain)
    await back.open()
    await back.close()
    await good.close()


async def test_a_hello_that_can_not_be_stored_is_refused(exchange: Running, node: ScriptedNode) -> None:
    await node.close()
    for changes in (
        {"agent_version": "a\0b"},
        {"boot_id": "x" * 5_000},
        {"node": "no\0de"},
        {"agent_id": ""},
    ):
        bad = ScriptedNode(exchange, node.id, node.key, node.chain)
        await bad.dial(hello=lambda body, changes=changes: msgspec.structs.replace(body, **changes))  # type: ignore[misc]
        await bad.until(lambda bad=bad: bad.closed)
        assert "printable" in refusals(bad)[0].reason


async def test_an_offer_beyond_belief_is_passed_over_and_the_old_one_stands(
    exchange: Running, node: ScriptedNode
) -> None:
    offers = (await exchange.client.get("/v1/offers")).json()["items"]
    node.seq += 1
    await raw(
        node, envelope(node, seq=node.seq, body={"offer": msgspec.to_builtins(OFFER) | {"cpu_milli": 10**15}})
    )
    await node.until(lambda: node.ack >= node.seq)
    assert (await exchange.client.get("/v1/offers")).json()["items"] == offers


async def test_outputs_that_a_node_never_uploaded_are_shown_to_nobody(
    exchange: Running, node: ScriptedNode
) -> None:
    """Knowing the digest of another project's blob would else be enough to read it."""
    secret = b"another project's outputs"
    digest = f"sha256:{hashlib.sha256(secret).hexdigest()}"
    async with exchange.client_with(await exchange.new_project("others")) as other:
        assert (await other.put(f"/v1/blobs/{digest}", content=secret)).status_code == 201
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1_000
    outputs = OutputBlob(digest=digest, size_bytes=len(secret), file_count=1)
    await node.report(started(order, at=at), exited(order, started_at=at, outputs=outputs))
    answer = await exchange.client.get(f"/v1/jobs/{job}/outputs")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_outputs")


async def test_a_signed_request_of_another_time_or_of_no_node_is_refused(
    exchange: Running, node: ScriptedNode
) -> None:
    path = "/v1/node/leases/x/workdir"
    for id, at in ((node.id, 0), (node.id, 10**400), (node.id, -(10**15)), ("no\0node", now_ms())):
        payload = wire.RequestPayload(node=id, method="GET", path=path, at=at)
        jws = sign(node.key, wire.encode(payload), typ=wire.REQUEST_TYPE)
        answer = await exchange.client.get(path, headers={"Authorization": f"Node {jws}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


async def _goes_well(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1_000
    await node.report(
        started(order, at=at), chunk(order, 0, b"\xff\0\x1b"), exited(order, started_at=at, log_bytes=3)
    )
    detail = await exchange.job(job)
    assert detail["state"] == "succeeded"
    receipt = (await exchange.client.get(f"/v1/receipts/{detail['runs'][0]['receipt']}")).json()
    authority = (await exchange.client.get("/v1/exchange")).json()["ca_fingerprint"]
    assert verify_receipt(json.dumps(receipt), trusted_fingerprint=authority).trusted


async def test_a_report_just_within_the_skew_is_taken(exchange: Running, node: ScriptedNode) -> None:
    late = ScriptedNode(exchange, node.id, node.key, node.chain)
    off = (CLOCK_SKEW_SECONDS_MAX - 20) * 1_000
    await node.close()
    await late.dial(hello=lambda body: msgspec.structs.replace(body, at=now_ms() - off))
    await asyncio.sleep(0)
    await late.until(lambda: any(isinstance(frame, wire.Welcome) for frame in late.frames))
    await late.close()
