"""Keys end by themselves, say when they were used, and what is done with them stays written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from server_world import Running, running_exchange

from perak.server import clock


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange") as running:
        yield running


async def new_key(exchange: Running, **wish: Any) -> dict[str, Any]:
    body = {"name": "laptop", "roles": ["renter", "operator"]} | wish
    answer = await exchange.client.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_key_ends_by_itself_and_makes_none_that_outlives_it(
    exchange: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await new_key(exchange, ttl_seconds=3600)
    async with exchange.client_with(made["secret"]) as client:
        assert (await client.get("/v1/me")).status_code == 200
        for ttl in ({}, {"ttl_seconds": 7200}):
            body = {"name": "child", "roles": ["renter"]} | ttl
            child = (await client.post("/v1/keys", json=body)).json()
            assert child["expires_at"] == made["expires_at"]
        later = datetime.now(UTC) + timedelta(hours=1, seconds=1)
        monkeypatch.setattr(clock, "now", lambda: later)
        answer = await client.get("/v1/me")
        assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)


async def test_the_list_says_what_a_key_may_do_and_when_it_was_used(exchange: Running) -> None:
    made = await new_key(exchange, scope="read", name="looks")
    unused = await new_key(exchange, name="unused")
    async with exchange.client_with(made["secret"]) as client:
        listed = {each["id"]: each for each in (await client.get("/v1/keys")).json()["items"]}
        assert listed[made["id"]]["scope"] == "read"
        again = {each["id"]: each for each in (await client.get("/v1/keys")).json()["items"]}
    used = datetime.fromisoformat(again[made["id"]]["last_used_at"])
    assert timedelta() <= datetime.now(UTC) - used < timedelta(minutes=5)
    assert again[unused["id"]]["last_used_at"] is None
    assert made["secret"] not in str(again)


async def test_the_trail_says_who_did_what_and_what_was_refused(exchange: Running) -> None:
    project = (await exchange.client.post("/v1/projects", json={"name": "lab"})).json()["id"]
    key = await new_key(exchange, project=project, roles=["renter"])
    funds = {"amount": "5.00", "project": project}
    once = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert (await exchange.client.post("/v1/wallet/funds", json=funds, headers=once)).status_code == 201
    async with exchange.client_with(key["secret"]) as client:
        await client.put("/v1/secrets/TOKEN", content=b"swordfish-8f3a")
        await client.delete("/v1/secrets/TOKEN")
        await client.delete("/v1/secrets/TOKEN")
        refused = await client.post("/v1/keys", json={"name": "more", "roles": ["operator"]})
        assert refused.status_code == 403
        own = (await client.get("/v1/trail")).json()["items"]
    await exchange.client.delete(f"/v1/keys/{key['id']}")
    steps = [(each["action"], each["subject"], each["outcome"]) for each in reversed(own)]
    assert steps == [
        ("secret.set", "TOKEN", "done"),
        ("secret.remove", "TOKEN", "done"),
        ("secret.remove", "TOKEN", "refused: not_found"),
        ("key.create", "", "refused: not_allowed"),
    ]
    assert {each["key_name"] for each in own} == {"laptop"}
    everything = (await exchange.client.get("/v1/trail", params={"limit": 3})).json()
    newest = everything["items"][0]
    assert (newest["action"], newest["subject"], newest["address"]) == ("key.revoke", key["id"], "127.0.0.1")
    page = {"cursor": everything["next_cursor"], "limit": 10}
    older = (await exchange.client.get("/v1/trail", params=page)).json()["items"]
    assert [each["action"] for each in older if each["project"] != project] == [
        "wallet.fund",
        "key.create",
        "project.create",
    ]
    assert older[-1]["subject"] == project
    assert "swordfish" not in str((everything, older, own))
    assert key["secret"] not in str((everything, older, own))


async def test_what_a_key_tried_beyond_its_scope_is_in_the_trail(exchange: Running) -> None:
    made = await new_key(exchange, scope="read", name="looks")
    async with exchange.client_with(made["secret"]) as client:
        assert (await client.get("/v1/me")).status_code == 200
        assert (await client.delete(f"/v1/keys/{made['id']}")).status_code == 403
    newest = (await exchange.client.get("/v1/trail", params={"limit": 1})).json()["items"][0]
    said = [newest[each] for each in ("action", "subject", "outcome", "key_name")]
    assert said == ["DELETE /v1/keys/{key}", f"/v1/keys/{made['id']}", "refused: scope", "looks"]


async def test_nobody_changes_the_trail(exchange: Running, database_url: str) -> None:
    await new_key(exchange)
    connection = await asyncpg.connect(database_url)
    try:
        for statement in ("update trail set outcome = 'x'", "delete from trail", "truncate trail"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await connection.execute(statement)
    finally:
        await connection.close()
