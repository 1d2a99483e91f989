"""The auditor finds nothing in sound books, and names each thing that was tampered with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from click.testing import CliRunner
from server_world import OFFER, Running, ScriptedNode, exited, now_ms, started

from perak.adapters.db.audit import open_books
from perak.domain.hardware import inspection as names
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.offer import Device
from perak.domain.report import Faulted, Inspected, OfferPosted, Wiped
from perak.server.audit import Report, audit, compare
from perak.server.audit_command import command
from unit.domain.hardware.inspections import V100, inspection

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
    "an entry that is gone": (
        "delete from passport_entry where seq = 2",
        "passport",
        "chain: entry 2 is numbered 3",
    ),
    "the last entry that is gone": (
        "delete from passport_entry where seq = 4",
        "standing",
        "that it names is not in the passport",
    ),
    "a wipe that no entry is of": (
        "delete from passport_entry where seq > 1",
        "passport",
        "no entry is of its wipe",
    ),
    "an entry's signature": (
        """update passport_entry
        set credential = overlay(credential placing 'AAAA' from length(credential) - 8) where seq = 1""",
        "passport",
        "signatures: entry 1",
    ),
    "an entry that says nothing": (
        "update passport_entry set credential = 'x.y.z' where seq = 1",
        "passport",
        "can't be read",
    ),
    "two entries that changed places": (
        "update passport_entry set seq = case seq when 2 then 30 else 20 end where seq in (2, 3)",
        "passport",
        "filed as the wiped 30",
    ),
    "an entry's digest": (
        "update passport_entry set digest = 'sha256:0' where seq = 2",
        "passport",
        "filed under sha256:0",
    ),
    "an incident's kind": (
        "update passport_entry set incident = 'xid 63' where incident = 'xid 79'",
        "passport",
        "filed as xid 63",
    ),
    "an entry's node": (
        "update passport_entry set node_id = 'x' where seq = 2",
        "passport",
        "filed under the node x",
    ),
    "an inspection that is gone": (
        "delete from inspection where digest = (select min(digest) from inspection)",
        "passport",
        "is not kept",
    ),
    "an inspection's text": (
        "update inspection set document = replace(document, '0.9', '0.8')",
        "passport",
        "stored as another text",
    ),
    "an inspection's signature": (
        "update inspection set jws = overlay(jws placing 'AAAA' from length(jws) - 8)",
        "passport",
        "evidence:",
    ),
    "whose inspection it was": ("update inspection set node_id = 'x'", "passport", "was signed by"),
    "another inspection's report": (
        "update inspection set jws = (select jws from inspection i where i.digest <> inspection.digest)",
        "passport",
        "its node signed",
    ),
    "how a wipe came out": ("update wipe set status = 'failed'", "passport", "filed as failed"),
    "a device's grade": (
        """update standing set document = document || '{"grade": "A"}'""",
        "standing",
        "its grade is A",
    ),
    "a grade on an offer": (
        "update offer set standings = jsonb_set(standings, '{GPU-1,standing,grade}', '\"A\"')",
        "standing",
        "its offer shows A",
    ),
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


async def with_a_passport(node: ScriptedNode) -> None:
    """A card that was inspected, wiped, met an Xid, and was inspected again: B, by its power."""
    at = now_ms() - 10_000_000
    wipe = WipeRecord(
        device="GPU-1", lease="lease-1", status="passed", memory_bytes=2**30, memory_total_bytes=2**34,
        local_bytes=1, leftover_words=0, started_at=now_ms() - 2000, ended_at=now_ms() - 1000,
    )  # fmt: skip
    card = Device(
        index=0, kind="nvidia", model=V100, uuid="GPU-1", memory_bytes=2**34, compute_capability="7.0"
    )
    await node.report(
        OfferPosted(offer=replace(OFFER, devices=(card,), price_gpu=1)),
        Inspected(inspection=inspection(at=at)),
        Wiped(record=wipe),
        Faulted(device="GPU-1", xid=79),
        Inspected(inspection=inspection({names.SOAK_POWER: 0.84}, at=at + 2_000_000)),
    )


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
    await with_a_passport(node)
    async with open_books(database_url) as books:
        sound = await audit(books)
    assert sound.sound, list(sound.lines())
    assert sound.looked_at["receipts"] == 1
    assert sound.looked_at["passport entries"] == 4
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
