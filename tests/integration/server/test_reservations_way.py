"""A reserved window from the quote to the receipt, over HTTP and from the command line, by the real clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from server_world import Running, ScriptedNode, exited, now_ms, started

from integration.server.test_market_way import perak
from perak.adapters.db.audit import Books, open_books
from perak.server.audit import audit

WHOLE = {"cpu": 2}
"""All cores of the node."""


def window(seconds: float, length: str = "1h") -> dict[str, str]:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    return {"start": start.isoformat(), "for": length}


def job(**more: Any) -> dict[str, Any]:
    return {"name": "kept", "run": "true", "resources": WHOLE, **more}


async def submit(exchange: Running, tree: dict[str, Any]) -> dict[str, Any]:
    answer = await exchange.client.post("/v1/jobs", json={"job": tree})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
async def later(exchange: Running, node: ScriptedNode) -> dict[str, Any]:
    """A job whose window begins in a day."""
    return await submit(exchange, job(reserve=window(86_400, "2h")))


async def test_a_window_from_quote_to_receipt(
    exchange: Running, node: ScriptedNode, database_url: str
) -> None:
    asked = job(reserve=window(3))
    quote = (await exchange.client.post("/v1/quotes", json={"job": asked})).json()
    assert (quote["product"], quote["hold"], quote["affordable"]) == ("reserved", "0.72", True)
    assert quote["offers"][0]["fits"]

    submitted = await submit(exchange, asked)
    assert (submitted["state"], submitted["held"]) == ("queued", "0.72")
    assert submitted["reservation"]["state"] == "booked"
    other = await exchange.submit(resources={"cpu": 0.25})
    assert not [order for order in node.leases if order.job == other]

    order = await node.lease_of(submitted["id"])
    at = now_ms()
    assert datetime.fromtimestamp(at / 1000, UTC) >= datetime.fromisoformat(asked["reserve"]["start"])
    await node.report(started(order, at=at), exited(order, started_at=at))

    ended = await exchange.job(submitted["id"])
    assert (ended["state"], ended["held"], ended["reservation"]["state"]) == ("succeeded", "0.00", "ended")
    await node.lease_of(other)
    async with open_books(database_url) as books:
        report = await audit(books)
    assert report.sound, list(report.lines())
    assert report.looked_at["windows"] == 1


async def test_what_is_reserved_is_shown_to_renter_and_provider(
    exchange: Running, node: ScriptedNode, later: dict[str, Any]
) -> None:
    why = (await exchange.client.get(f"/v1/jobs/{later['id']}/why")).json()
    assert "node is reserved for it from" in why["reasons"][0]
    assert "it begins then" in why["reasons"][0]
    taken = (await exchange.client.post("/v1/quotes", json={"job": job(reserve=window(86_400))})).json()
    assert [m["dimension"] for m in taken["offers"][0]["misfits"]] == ["cpu"]

    (listed,) = (await exchange.client.get("/v1/jobs")).json()["items"]
    assert listed["reservation"]["cost"] == "1.44"
    (shown,) = (await exchange.client.get("/v1/nodes")).json()["items"]
    (kept,) = shown["reservations"]
    assert (kept["price"], kept["cpu_milli"]) == ("0.36", 2000)
    assert "1 reserved window on node" in await perak(exchange, "node", "pause", "node")


async def test_until_it_begins_a_cancellation_is_free(exchange: Running, later: dict[str, Any]) -> None:
    cancelled = (await exchange.client.post(f"/v1/jobs/{later['id']}/cancel")).json()

    assert (cancelled["state"], cancelled["held"]) == ("cancelled", "0.00")
    assert cancelled["reservation"]["state"] == "cancelled"
    why = (await exchange.client.get(f"/v1/jobs/{later['id']}/why")).json()
    assert "was cancelled before it began" in why["reasons"][0]


def refused() -> list[tuple[dict[str, Any], int, str]]:
    """What a job file says of its window, and how it is answered."""
    start = window(86_400, "2h")
    return [
        ({"reserve": {"start": "2020-01-01T00:00Z", "for": "1h"}}, 400, "is past"),
        ({"reserve": start, "start": {"within": "1h"}}, 400, "for a job that may wait"),
        ({"reserve": start, "interruptible": {}}, 400, "interruptible: is not supported yet"),
        ({"reserve": start, "limits": {"max_cost": "1.00"}}, 409, "no offer has room"),
    ]


async def test_what_makes_no_window_makes_no_job(exchange: Running, node: ScriptedNode) -> None:
    for more, status, words in refused():
        answer = await exchange.client.post("/v1/jobs", json={"job": job(**more)})
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    held = await exchange.client.post("/v1/quotes/held", json={"job": job(reserve=window(86_400))})
    assert (held.status_code, "needs no held quote" in held.text) == (400, True)
    assert (await exchange.client.get("/v1/jobs")).json()["items"] == []


TAMPERED = {
    "a window of an ended job": "update job set state = 'failed', ended_at = now()",
    "a hold that is too small": "update reservation set end_at = end_at + interval '1 hour'",
    "a window that is over while its job waits": "update reservation set state = 'lost'",
}


async def test_the_auditor_sees_what_was_tampered_with(database_url: str, later: dict[str, Any]) -> None:
    parts = urlsplit(database_url)
    connection = await asyncpg.connect(
        user="postgres", host=parse_qs(parts.query)["host"][0], database=parts.path[1:]
    )
    try:
        await connection.execute("set session_replication_role = replica")
        for name, statement in TAMPERED.items():
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(statement)
            async with connection.transaction():
                report = await audit(Books(connection))
            await transaction.rollback()
            assert [each for each in report.findings if each.check == "window"], name
    finally:
        await connection.close()
