"""The auditor finds nothing in sound books, and names each thing that was tampered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from click.testing import CliRunner
from server_world import Running, ScriptedNode, exited, now_ms, started

from perak.adapters.db.audit import open_books
from perak.server.audit import Report, audit, compare
from perak.server.audit_command import command

TAMPERED = {
    "a balance": ("update account set posted = posted + 1 where kind = 'wallet'", "balance", "its row says"),
    "what is held": ("update account set pending = 5 where kind = 'wallet'", "balance", "its row says"),
    "an account that keeps no balance": (
        "update account set posted = 7 where kind = 'fees'",
        "balance",
        "fees",
    ),
    "a payout": ("update transfer set amount = amount + 1 where kind = 'payout'", "run", "captured"),
    "a payout that is gone": ("delete from transfer where kind = 'payout'", "balance", "escrow"),
    "a hold that is gone": ("delete from transfer where kind = 'hold'", "hold", "never made"),
    "a capture beyond its hold": (
        "update transfer set amount = 10^12 where kind = 'capture'",
        "hold",
        "captured of",
    ),
    "a hold resolved twice": (
        """drop index transfer_resolves;
        insert into transfer (at, phase, kind, debit, credit, amount, pending_id)
        select at, 'void', 'release', debit, credit, 0, pending_id from transfer where kind = 'capture'""",
        "hold",
        "resolved before",
    ),
    "a payment out of nowhere": (
        """insert into transfer (at, phase, kind, debit, credit, amount)
        select now(), 'single', 'payout', a.id, b.id, 5
        from account a, account b where a.kind = 'external' and b.kind = 'earnings'""",
        "transfer",
        "none that there may be",
    ),
    "a hold of an ended job": (
        """insert into transfer (at, phase, kind, debit, credit, amount, job_id)
        select at, 'pending', 'hold', debit, credit, 9, job_id from transfer where kind = 'hold'""",
        "hold",
        "still held",
    ),
    "a receipt's text": (
        "update receipt set payload = jsonb_set(payload, '{exit_code}', '3')",
        "receipt",
        "differs",
    ),
    "a receipt's signature": (
        "update receipt set jws = overlay(jws placing 'AAAA' from length(jws) - 8)",
        "receipt",
        "exchange signature",
    ),
    "a receipt's owner": ("update receipt set provider_project_id = 'x'", "receipt", "filed under"),
    "a receipt's cost": ("update receipt set cost = cost + 1", "receipt", "the ledger moved"),
    "a receipt that is gone": ("delete from receipt", "run", "has no receipt"),
    "a run's cost": ("update run set cost = cost + 1", "run", "the ledger moved"),
    "a run's evidence": ("update run set evidence_jws = null", "run", "signed evidence proves 0"),
    "a price": ("update lease set price = price / 2", "run", "signed evidence proves"),
    "a lease of an ended job": ("update lease set state = 'active'", "lease", "has ended"),
    "an offer's use": ("update offer set used_cpu_milli = 1", "offer", "are used"),
    "the authority": ("update exchange set ca_certificate = signing_chain", "receipt", "authority"),
}


@pytest.fixture
async def settled(exchange: Running, node: ScriptedNode) -> tuple[str, dict[str, Any]]:
    """A job that ended two seconds after its start, by the node's clock; the job and its receipt."""
    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 2000
    await node.report(started(order, at=at), exited(order, started_at=at))
    (receipt,) = (await exchange.client.get("/v1/receipts")).json()["items"]
    return job, dict((await exchange.client.get(f"/v1/receipts/{receipt['id']}")).json())


async def report_of(connection: Any) -> Report:
    """The audit of what this connection sees, its own changes included."""
    from perak.adapters.db.audit import Books

    async with connection.transaction():
        return await audit(Books(connection))


async def as_superuser(database_url: str) -> Any:
    """Who may do what the schema refuses: triggers and references are off."""
    parts = urlsplit(database_url)
    connection = await asyncpg.connect(
        user="postgres", host=parse_qs(parts.query)["host"][0], database=parts.path[1:]
    )
    await connection.execute("set session_replication_role = replica")
    return connection


async def test_sound_books_and_each_tampering(
    database_url: str, settled: tuple[str, dict[str, Any]], node: ScriptedNode, exchange: Running
) -> None:
    await exchange.submit()  # and one that goes on, with money held
    async with open_books(database_url) as books:
        sound = await audit(books)
    assert sound.sound, list(sound.lines())
    assert sound.looked_at["receipts"] == 1
    connection = await as_superuser(database_url)
    missed = []
    for name, (statement, check, words) in TAMPERED.items():
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        found = (await report_of(connection)).findings
        if not any(f.check == check and words in f"{f.subject} {f.detail}" for f in found):
            missed.append((name, found))
        await transaction.rollback()
    await connection.close()
    assert not missed


async def test_receipts_that_others_hold_are_looked_for(
    database_url: str, settled: tuple[str, dict[str, Any]]
) -> None:
    _, receipt = settled
    forged = receipt | {"receipt": receipt["receipt"] | {"cost_micros": 0}}
    held = [("mine.json", json.dumps(receipt)), ("forged.json", json.dumps(forged))]
    async with open_books(database_url) as books:
        await compare(report := Report(), books, iter(held))
    assert [(f.check, f.subject) for f in report.findings] == [("held receipt", "forged.json")]

    connection = await as_superuser(database_url)
    await connection.execute("delete from receipt")  # as a back-up from before it would be
    await connection.close()
    async with open_books(database_url) as books:
        await compare(report := Report(), books, iter(held[:1]))
    (lost,) = report.findings
    assert (lost.check, lost.subject) == ("lost receipt", receipt["receipt"]["id"])
    assert receipt["receipt"]["run"] in lost.detail


def test_the_command_says_it_by_its_exit_code(empty_database_url: str, tmp_path: Path) -> None:
    from asyncio import run

    from perak.adapters.db.migrate import upgrade

    run(upgrade(empty_database_url))
    ended = CliRunner().invoke(command, ["--database", empty_database_url, "--json"])
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["findings"][0]["check"] == "exchange"
    nowhere = CliRunner().invoke(command, ["--state-dir", str(tmp_path / "nothing")])
    assert nowhere.exit_code == 1
    assert "no database of a `perak up`" in nowhere.output
