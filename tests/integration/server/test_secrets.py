"""Secrets: set and never read back, sealed at rest, sealed to the node whose live lease names them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from cryptography.fernet import Fernet
from server_world import Running, ScriptedNode, exited, now_ms, running_exchange, started

from perak.domain.report import OutputBlob
from perak.domain.secrets import PER_PROJECT_MAX, VALUE_BYTES_MAX, WORKDIR_KEY
from perak.server.auth import new_secret
from perak.server.identity import SecretFileError
from perak.wire.encryption import Key
from perak.wire.sealing import SealError, open_sealed

TOKEN = b"swordfish-8f3a"


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange") as running:
        yield running


async def put(exchange: Running, name: str, value: bytes) -> int:
    return (await exchange.client.put(f"/v1/secrets/{name}", content=value)).status_code


async def test_a_secret_is_listed_by_name_and_its_value_is_nowhere_in_the_database(
    exchange: Running, database_url: str
) -> None:
    assert await put(exchange, "TOKEN", TOKEN) == 200
    assert await put(exchange, "TOKEN", TOKEN + b"2") == 200
    assert await put(exchange, "A_KEY", b"\x00\xff") == 200
    listed = (await exchange.client.get("/v1/secrets")).json()["items"]
    assert [each["name"] for each in listed] == ["A_KEY", "TOKEN"]
    assert [set(each) for each in listed] == [{"name", "created_at", "changed_at"}] * 2
    assert listed[1]["changed_at"] > listed[1]["created_at"]
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        for (table,) in tables:
            for row in await connection.fetch(f'select "{table}"::text as line from "{table}"'):
                line = row["line"]
                assert TOKEN.decode() not in line, table
                assert TOKEN.hex() not in line, table
    finally:
        await connection.close()
    assert (await exchange.client.delete("/v1/secrets/TOKEN")).json()["name"] == "TOKEN"
    assert (await exchange.client.delete("/v1/secrets/TOKEN")).status_code == 404


async def test_what_is_wrong_is_refused_without_repeating_the_value(exchange: Running) -> None:
    for name, value in (("1BAD", TOKEN), ("BAD-NAME", TOKEN), ("X" * 65, TOKEN), ("TOKEN", b"")):
        answer = await exchange.client.put(f"/v1/secrets/{name}", content=value)
        assert answer.status_code == 400
        assert TOKEN.decode() not in answer.text
    assert await put(exchange, "LARGE", b"x" * VALUE_BYTES_MAX) == 200
    assert await put(exchange, "LARGER", b"x" * (VALUE_BYTES_MAX + 1)) == 413


async def test_a_project_has_only_so_many(exchange: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PER_PROJECT_MAX >= 100
    monkeypatch.setattr("perak.server.routes.secrets.PER_PROJECT_MAX", 2)
    assert [await put(exchange, name, TOKEN) for name in "ABC"] == [200, 200, 409]
    assert await put(exchange, "A", b"again") == 200


async def test_a_job_that_names_a_secret_which_is_not_there_is_refused_by_name(exchange: Running) -> None:
    await put(exchange, "HERE", TOKEN)
    job = {"name": "x", "run": "true", "secrets": ["HERE", "ABSENT"]}
    answer = await exchange.client.post("/v1/jobs", json={"job": job})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_secret")
    assert "no secret ABSENT" in answer.json()["detail"]
    image = {"name": f"registry.example/x@sha256:{'0' * 64}", "credentials": "REGISTRY"}
    answer = await exchange.client.post("/v1/jobs", json={"job": {"name": "x", "image": image}})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_secret")


async def test_the_leases_node_opens_them_and_nobody_else(exchange: Running) -> None:
    await put(exchange, "TOKEN", TOKEN)
    await put(exchange, "OTHER", b"not asked for")
    node = await ScriptedNode.enrol(exchange)
    await node.open()
    order = await node.lease_of(await exchange.submit(secrets=["TOKEN"]))
    assert [each.name for each in order.secrets] == ["TOKEN"]
    path = f"/v1/node/leases/{order.lease}/secrets"
    answer = await node.request("GET", path)
    assert answer.status_code == 200
    assert TOKEN not in answer.content

    name = exchange.services.context.exchange.name

    def opened(node: ScriptedNode, lease: str = order.lease) -> dict[str, bytes]:
        return open_sealed(answer.content, key=node.seal, exchange=name, node=node.id, lease=lease)

    assert opened(node) == {"TOKEN": TOKEN}
    again = await node.request("GET", path)
    assert again.content != answer.content  # each time sealed anew
    with pytest.raises(SealError):
        opened(node, "lease-other@local")
    other = await ScriptedNode.enrol(exchange, name="other")
    assert (await other.request("GET", path)).status_code == 404
    with pytest.raises(SealError):
        opened(other)
    for asker in (node, other):
        assert (await asker.request("GET", path, signed_path="/v1/other")).status_code == 401

    await exchange.client.delete("/v1/secrets/TOKEN")
    gone = await node.request("GET", path)
    assert (gone.status_code, gone.json()["code"]) == (404, "no_secret")
    assert "TOKEN" in gone.json()["detail"]
    await node.report(started(order, at=now_ms() - 1000), exited(order, started_at=now_ms() - 1000))
    assert (await node.request("GET", path)).status_code == 404
    await node.close()


async def test_a_run_that_is_to_stop_gets_none(exchange: Running) -> None:
    await put(exchange, "TOKEN", TOKEN)
    node = await ScriptedNode.enrol(exchange)
    await node.open()
    job = await exchange.submit(secrets=["TOKEN"])
    order = await node.lease_of(job)
    await exchange.client.post(f"/v1/jobs/{job}/cancel")
    answer = await node.request("GET", f"/v1/node/leases/{order.lease}/secrets")
    name = exchange.services.context.exchange.name
    values = open_sealed(answer.content, key=node.seal, exchange=name, node=node.id, lease=order.lease)
    assert values == {}
    await node.close()


async def test_encryption_needs_a_recipient_and_a_key_and_the_key_goes_to_the_node_alone(
    exchange: Running,
) -> None:
    mine, folder = Key.generate(), Key.generate()
    body = b"age-encryption.org/v1\nciphertext"
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    await exchange.client.put(f"/v1/blobs/{digest}", content=body)
    job = {"name": "sealed", "run": "true", "encrypt": mine.recipient}

    async def refused(**request: object) -> str:
        answer = await exchange.client.post("/v1/jobs", json=request)
        assert answer.status_code == 400, answer.text
        assert folder.identity not in answer.text
        return str(answer.json()["code"])

    assert await refused(job=job | {"encrypt": True}) == "no_recipient"
    assert await refused(job=job, workdir=digest) == "no_workdir_key"
    assert await refused(job=job, workdir_key=folder.identity) == "no_workdir_key"
    assert await refused(job=job, workdir=digest, workdir_key=folder.identity.lower()) == "invalid_input"

    node = await ScriptedNode.enrol(exchange)
    await node.open()
    answer = await exchange.client.post(
        "/v1/jobs", json={"job": job, "workdir": digest, "workdir_key": folder.identity}
    )
    order = await node.lease_of(answer.json()["id"])
    assert order.encrypt_to == mine.recipient
    path = f"/v1/node/leases/{order.lease}/secrets"
    envelope = (await node.request("GET", path)).content
    name = exchange.services.context.exchange.name
    values = open_sealed(envelope, key=node.seal, exchange=name, node=node.id, lease=order.lease)
    assert values == {WORKDIR_KEY: folder.identity.encode()}
    shown = (await exchange.client.get(f"/v1/jobs/{order.job}")).text
    assert folder.identity not in shown
    await node.report(started(order, at=now_ms() - 1000), exited(order, started_at=now_ms() - 1000))
    async with exchange.services.db.transaction() as tx:
        await tx.secrets.forget_of_ended(limit=1000)
        assert await tx.connection.fetchval("select count(*) from job_secret") == 0
    await node.close()


async def test_the_exchanges_key_is_changed_without_losing_a_secret(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "exchange" / "exchange.secret"
    operator = new_secret()
    once = {"Idempotency-Key": "once"}
    async with running_exchange(database_url, file.parent, operator_key=operator) as first:
        assert await put(first, "TOKEN", TOKEN) == 200
        invite = await first.client.post("/v1/invites", json={}, headers=once)
    old = file.read_text()
    file.write_text(f"{Fernet.generate_key().decode()}\n{old}")
    async with running_exchange(database_url, file.parent, operator_key=operator):
        pass
    file.write_text(file.read_text().splitlines()[0] + "\n")
    async with running_exchange(database_url, file.parent, operator_key=operator) as last:
        again = await last.client.post("/v1/invites", json={}, headers=once)
        assert again.json() == invite.json()
        node = await ScriptedNode.enrol(last)
        await node.open()
        order = await node.lease_of(await last.submit(secrets=["TOKEN"]))
        envelope = (await node.request("GET", f"/v1/node/leases/{order.lease}/secrets")).content
        name = last.services.context.exchange.name
        values = open_sealed(envelope, key=node.seal, exchange=name, node=node.id, lease=order.lease)
        assert values == {"TOKEN": TOKEN}
        await node.close()
    file.write_text(old)
    with pytest.raises(SecretFileError):
        async with running_exchange(database_url, file.parent, operator_key=operator):
            pass


async def test_encrypted_outputs_are_no_input(exchange: Running) -> None:
    mine = Key.generate()
    node = await ScriptedNode.enrol(exchange)
    await node.open()
    order = await node.lease_of(await exchange.submit(encrypt=mine.recipient, outputs=["out/"]))
    made = b"age-encryption.org/v1\nciphertext"
    digest = f"sha256:{hashlib.sha256(made).hexdigest()}"
    path = f"/v1/node/leases/{order.lease}/outputs/{digest}"
    assert (await node.request("PUT", path, content=made)).status_code == 201
    blob = OutputBlob(digest=digest, size_bytes=len(made), file_count=1)
    at = now_ms() - 1000
    await node.report(started(order, at=at), exited(order, started_at=at, outputs=blob))
    job = {"name": "next", "run": "true", "inputs": {"before": f"job:{order.job}"}}
    answer = await exchange.client.post("/v1/jobs", json={"job": job})
    assert answer.status_code == 400
    assert "encrypted to their renter" in answer.json()["detail"]
    await node.close()
