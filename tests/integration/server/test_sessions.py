"""The agents' end of the exchange: who may talk, what is taken, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from server_world import (
    OFFER,
    Running,
    ScriptedNode,
    chunk,
    enrolment,
    exited,
    now_ms,
    running_exchange,
    started,
)

from perak.app.periods import Periods
from perak.domain.report import OfferPosted
from perak.wire import session as wire
from perak.wire.identity import chain_from_pem, verify_chain
from perak.wire.invite import Invite
from perak.wire.signing import SigningKey


def refusals(node: ScriptedNode) -> list[wire.Refused]:
    return [frame for frame in node.frames if isinstance(frame, wire.Refused)]


async def test_an_invite_enrols_once_and_may_be_repeated(exchange: Running) -> None:
    token = (await exchange.client.post("/v1/invites", json={})).json()["token"]
    secret, key = Invite.decode(token).secret, SigningKey.generate()
    body = enrolment(secret, key, "node")
    first = await exchange.client.post("/v1/enrol", json=body)
    again = await exchange.client.post("/v1/enrol", json=body)
    other = await exchange.client.post("/v1/enrol", json=enrolment(secret, SigningKey.generate(), "other"))
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert (other.status_code, other.json()["code"]) == (401, "not_authenticated")


async def test_only_the_nodes_key_opens_its_session(exchange: Running) -> None:
    node = await ScriptedNode.enrol(exchange)
    node.key = SigningKey.generate()
    await node.dial()
    await node.until(lambda: node.closed)
    assert not any(isinstance(frame, wire.Welcome) for frame in node.frames)


async def test_an_old_answer_to_the_challenge_is_worthless(exchange: Running) -> None:
    node = await ScriptedNode.enrol(exchange)
    await node.dial(hello=lambda body: msgspec.structs.replace(body, nonce="x" * 32))
    await node.until(lambda: node.closed)
    assert not any(isinstance(frame, wire.Welcome) for frame in node.frames)


async def test_a_second_agent_is_refused_while_the_first_lives(exchange: Running, node: ScriptedNode) -> None:
    second = ScriptedNode(exchange, node.id, node.key, node.chain, agent_id="second")
    await second.dial()
    await second.greeted()
    await node.beat()
    await second.until(lambda: second.closed)
    assert [refused.retry for refused in refusals(second)] == [True]
    await node.close()
    third = ScriptedNode(exchange, node.id, node.key, node.chain, agent_id="third")
    await third.open(offer=None)
    await third.close()


async def test_a_newcomer_takes_over_from_a_session_that_only_seems_open(
    database_url: str, state_dir: Path
) -> None:
    """Its agent was killed where packets vanish: nothing closed the connection, and nobody has to be told."""
    async with running_exchange(database_url, state_dir, periods=Periods(beat_seconds=0.4)) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open()
        second = ScriptedNode(exchange, node.id, node.key, node.chain, agent_id="second")
        await second.open(offer=None)
        assert refusals(second) == []
        assert (await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"] is None
        await second.close()
        await node.close()


async def test_the_same_agent_may_dial_again(exchange: Running, node: ScriptedNode) -> None:
    again = ScriptedNode(exchange, node.id, node.key, node.chain)
    await again.open(offer=None)
    assert again.ack == node.ack
    await node.until(lambda: node.closed)
    await again.close()


async def test_a_gap_closes_the_session_and_sending_again_heals_it(
    exchange: Running, node: ScriptedNode
) -> None:
    await node.send_report(OfferPosted(offer=OFFER), seq=node.seq + 5)
    await node.until(lambda: node.closed)
    await node.open(offer=None)
    await node.report(OfferPosted(offer=OFFER))


async def test_a_repeated_report_is_acknowledged_and_changes_nothing(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    await node.report(started(order), chunk(order, 0, b"once\n"))
    await node.send_report(chunk(order, 0, b"once\n"), seq=node.seq)
    await node.report(chunk(order, 5, b"twice\n"))
    assert (await exchange.client.get(f"/v1/jobs/{job}/log")).content == b"once\ntwice\n"


async def test_a_report_that_cannot_be_applied_does_not_stop_the_rest(
    exchange: Running, node: ScriptedNode
) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1000
    # The chunk leaves a gap in the log: it is passed over, and the run settles all the same.
    await node.report(
        started(order, at=at), chunk(order, 999, b"?"), exited(order, started_at=at, log_bytes=0)
    )
    assert (await exchange.job(job))["state"] == "succeeded"


async def test_another_nodes_report_on_a_lease_changes_nothing(exchange: Running, node: ScriptedNode) -> None:
    job = await exchange.submit()
    order = await node.lease_of(job)
    thief = await ScriptedNode.enrol(exchange, name="thief")
    await thief.open(offer=None)
    await thief.report(exited(order, started_at=now_ms() - 10**6))
    assert (await exchange.job(job))["state"] == "leased"
    await thief.close()


async def test_a_node_gets_its_jobs_work_folder_and_no_other(exchange: Running, node: ScriptedNode) -> None:
    import hashlib

    data = b"a packed folder"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (await exchange.client.put(f"/v1/blobs/{digest}", content=data)).status_code == 201
    answer = await exchange.client.post(
        "/v1/jobs", json={"job": {"name": "w", "run": "ls", "workdir": "."}, "workdir": digest}
    )
    order = await node.lease_of(answer.json()["id"])
    assert order.workdir_digest == digest
    path = f"/v1/node/leases/{order.lease}/workdir"
    assert (await node.request("GET", path)).content == data
    assert (await node.request("GET", path, signed_path="/v1/node/leases/other/workdir")).status_code == 401
    thief = await ScriptedNode.enrol(exchange, name="thief")
    assert (await thief.request("GET", path)).status_code == 404

    outputs = b"what the job made"
    made = f"sha256:{hashlib.sha256(outputs).hexdigest()}"
    put = f"/v1/node/leases/{order.lease}/outputs/{made}"
    assert (await node.request("PUT", put, content=outputs)).status_code == 201
    assert (await node.request("PUT", put, content=b"something else")).json()["code"] == "digest_mismatch"
    at = now_ms() - 1000
    from perak.domain.report import OutputBlob

    blob = OutputBlob(digest=made, size_bytes=len(outputs), file_count=1)
    none = await exchange.client.get(f"/v1/jobs/{order.job}/outputs")
    assert (none.status_code, none.json()["code"]) == (404, "no_outputs")
    await node.report(started(order, at=at), exited(order, started_at=at, outputs=blob))
    downloaded = await exchange.client.get(f"/v1/jobs/{order.job}/outputs")
    assert (downloaded.content, downloaded.headers["X-Perak-Digest"]) == (outputs, made)


async def test_a_certificate_is_renewed_when_half_of_its_life_is_over(exchange: Running) -> None:
    node = await ScriptedNode.enrol(exchange)
    async with exchange.services.db.connection() as connection:
        await connection.execute(
            "update node set certificate_expires_at = now() + interval '11 hours' where id = $1", node.id
        )
    await node.open(offer=None)
    await node.beat()
    await node.until(lambda: any(isinstance(frame, wire.Certificate) for frame in node.frames))
    (fresh,) = [frame for frame in node.frames if isinstance(frame, wire.Certificate)]
    proven = verify_chain(chain_from_pem(fresh.chain), at=datetime.now(UTC) + timedelta(hours=23))
    assert (proven.subject_id, proven.public_key) == (node.id, node.key.public_bytes)
    await node.close()
