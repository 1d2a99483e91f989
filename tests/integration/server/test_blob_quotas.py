"""Blobs are kept within quotas, and until no job refers to them for long."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from server_world import Running, ScriptedNode, exited, now_ms, running_exchange, started

from perak.domain.report import OutputBlob
from perak.server import clock
from perak.server.keeping import evict_round
from perak.server.settings import Quotas

QUOTAS = Quotas(project_bytes=1000, node_bytes=300, kept_seconds=3600)


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange", quotas=QUOTAS) as running:
        yield running


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def put(exchange: Running, data: bytes) -> httpx.Response:
    return await exchange.client.put(f"/v1/blobs/{digest_of(data)}", content=data)


async def has(exchange: Running, data: bytes) -> bool:
    known = (await exchange.client.head(f"/v1/blobs/{digest_of(data)}")).status_code == 200
    assert known == (await exchange.services.blobs.size(digest_of(data)) is not None)
    return known


async def grow_old(exchange: Running) -> None:
    async with exchange.services.db.connection() as connection:
        await connection.execute("update blob set created_at = $1", clock.now() - timedelta(hours=2))


async def test_a_project_keeps_so_much_and_is_told_what_to_do(exchange: Running) -> None:
    assert (await put(exchange, b"a" * 600)).status_code == 201
    refused = await put(exchange, b"b" * 600)
    assert (refused.status_code, refused.json()["code"]) == (413, "quota_exceeded")
    assert "wait, send less, or ask the operator" in refused.json()["detail"]
    assert not await has(exchange, b"b" * 600)
    assert (await put(exchange, b"a" * 600)).status_code == 200, "what it has already counts once"
    assert (await put(exchange, b"c" * 400)).status_code == 201
    assert (await put(exchange, b"")).status_code == 413, "it is full"


async def test_two_uploads_at_once_do_not_pass_the_quota_together(exchange: Running) -> None:
    blobs = [bytes([number]) * 400 for number in range(6)]
    answers = await asyncio.gather(*(put(exchange, data) for data in blobs))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 413, 413, 413, 413]
    for data, answer in zip(blobs, answers, strict=True):
        assert await has(exchange, data) == (answer.status_code == 201), "nor do refused bytes stay"


async def test_a_node_keeps_so_much_and_the_project_may_send_more(
    exchange: Running, node: ScriptedNode
) -> None:
    order = await node.lease_of(await exchange.submit(outputs=["out"]))
    for data, status in ((b"a" * 200, 201), (b"b" * 200, 413)):
        answer = await node.request(
            "PUT", f"/v1/node/leases/{order.lease}/outputs/{digest_of(data)}", content=data
        )
        assert answer.status_code == status, answer.text
    assert (await put(exchange, b"b" * 200)).status_code == 201


async def test_what_no_job_refers_to_goes_and_what_one_does_stays(
    exchange: Running, node: ScriptedNode
) -> None:
    outputs, workdir, named, unused = b"outputs", b"workdir", b"named", b"unused"
    for data in (workdir, named, unused):
        assert (await put(exchange, data)).status_code == 201
    job = {"name": "test", "run": "echo hi", "outputs": ["out"], "env": {"SEE": digest_of(named)}}
    made = await exchange.client.post("/v1/jobs", json={"job": job, "workdir": digest_of(workdir)})
    assert made.status_code == 201, made.text
    order = await node.lease_of(made.json()["id"])
    path = f"/v1/node/leases/{order.lease}/outputs/{digest_of(outputs)}"
    assert (await node.request("PUT", path, content=outputs)).status_code == 201
    at = now_ms()
    await node.report(started(order, at=at))
    assert await evict_round(exchange.services) == 0, "all are young"
    await grow_old(exchange)
    async with exchange.services.db.connection() as connection:
        await connection.execute(
            "update blob set created_at = $1 where digest = $2", clock.now(), digest_of(outputs)
        )
    assert await evict_round(exchange.services) == 1
    assert [await has(exchange, data) for data in (outputs, workdir, named, unused)] == [
        True,
        True,
        True,
        False,
    ]

    blob = OutputBlob(digest=digest_of(outputs), size_bytes=len(outputs), file_count=1)
    await node.report(exited(order, started_at=at, outputs=blob))
    await grow_old(exchange)
    assert await evict_round(exchange.services) == 1, "named by a job that has ended"
    assert [await has(exchange, data) for data in (outputs, workdir, named)] == [True, True, False]


async def test_a_blob_that_another_project_has_keeps_its_bytes(exchange: Running) -> None:
    data = b"shared"
    await put(exchange, data)
    async with exchange.client_with(await exchange.new_project("other")) as other:
        project = (await other.get("/v1/me")).json()["project"]
        assert (await other.put(f"/v1/blobs/{digest_of(data)}", content=data)).status_code == 201
        async with exchange.services.db.connection() as connection:
            await connection.execute(
                "update blob set created_at = $1 where project_id <> $2",
                clock.now() - timedelta(hours=2),
                project,
            )
        assert await evict_round(exchange.services) == 1
        assert (await exchange.client.get(f"/v1/blobs/{digest_of(data)}")).status_code == 404
        assert (await other.get(f"/v1/blobs/{digest_of(data)}")).content == data
