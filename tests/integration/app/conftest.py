"""A small exchange on a real database: one project that rents, one that provides, one node with an offer."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perak.adapters.db.database import Database
from perak.adapters.db.exchange import ExchangeRow, create_exchange
from perak.adapters.db.reclaims import PgReclaims
from perak.app import jobs, market, nodes, reports, sessions
from perak.app.context import Context
from perak.app.effects import Effect
from perak.app.periods import Periods
from perak.app.records import Caller, ExchangeFacts, SignedReceipt
from perak.domain.ids import new_id
from perak.domain.job import JobSpec, Limits
from perak.domain.offer import OfferAsk
from perak.domain.receipt import Receipt, payload
from perak.domain.report import Body, OfferPosted, Report

START = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
FACTS = ExchangeFacts(name="test", currency="USD", fee_basis_points=200)
RENTER = Caller(
    key=new_id("key", exchange="test", now_ms=1, random=1),
    key_name="renter",
    project=new_id("project", exchange="test", now_ms=1, random=1),
    project_name="renters",
    roles=frozenset({"renter"}),
)
PROVIDER = Caller(
    key=new_id("key", exchange="test", now_ms=1, random=2),
    key_name="provider",
    project=new_id("project", exchange="test", now_ms=1, random=2),
    project_name="providers",
    roles=frozenset({"provider"}),
)


def ask(**changes: Any) -> OfferAsk:
    fields: dict[str, Any] = {
        "region": "DE",
        "cpu_model": "Test CPU",
        "cpu_milli": 2000,
        "memory_bytes": 8 * 10**9,
        "disk_bytes": 50 * 10**9,
        "price_cpu": 360_000,
        "pythons": ("3.11",),
    }
    return OfferAsk(**{**fields, **changes})


@dataclass
class World:
    """Drives the use cases under a clock that the test moves."""

    db: Database
    node: str
    context: Context
    now: datetime = START
    seq: int = 0
    signed: list[Receipt] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def now_ms(self) -> int:
        return int(self.now.timestamp() * 1000)

    async def fund(self, amount: int, project: str = RENTER.project) -> None:
        async with self.db.transaction() as tx:
            await tx.ledger.fund(project=project, amount=amount, note="test", now=self.now)

    async def submit(self, spec: JobSpec | None = None, **changes: Any) -> str:
        spec = spec or JobSpec(
            name="hello", run="echo hi", limits=Limits(max_duration_seconds=3600), **changes
        )
        async with self.db.transaction() as tx:
            job, _ = await jobs.submit(
                tx, caller=RENTER, spec=spec, tree={}, new_id=self.context.new_id, now=self.now
            )
        return job

    async def clear(self) -> list[Effect]:
        async with self.db.transaction() as tx:
            return await market.clear(tx, new_id=self.context.new_id, now=self.now)

    async def cancel(self, job: str) -> list[Effect]:
        async with self.db.transaction() as tx:
            return await jobs.cancel(tx, caller=RENTER, job_id=job, now=self.now)

    async def set_mode(self, mode: str, within: int | None = None) -> None:
        """The node's owner pauses it, drains it or takes it back."""
        async with self.db.transaction() as tx:
            await nodes.set_mode(
                tx,
                PgReclaims(tx.connection),
                node_id=self.node,
                project=PROVIDER.project,
                mode=mode,
                within_seconds=within,
                now=self.now,
            )

    async def report(self, *bodies: Body, seq: int | None = None) -> int:
        """Apply reports of the node; `seq` numbers the first one, by default the next."""
        first = self.seq + 1 if seq is None else seq
        batch = [
            Report(seq=first + i, node=self.node, at=self.now_ms, body=body, jws=f"jws-{first + i}")
            for i, body in enumerate(bodies)
        ]
        async with self.db.transaction() as tx:
            self.seq, _ = await reports.apply_reports(
                tx, node_id=self.node, reports=batch, context=self.context, now=self.now
            )
        return self.seq

    async def connect(self) -> None:
        async with self.db.transaction() as tx:
            greeting = sessions.Greeting(
                node=self.node, agent="a", agent_version="0", boot="b", session=1, arrived_at=self.now
            )
            await sessions.connect(tx, greetings=[greeting], replica=1, periods=Periods(), now=self.now)

    async def one(self, query: str, *values: object) -> dict[str, Any]:
        async with self.db.connection() as connection:
            row = await connection.fetchrow(query, *values)
            assert row is not None, query
            return dict(row)

    async def job(self, job: str) -> dict[str, Any]:
        return await self.one("select * from job where id = $1", job)

    async def lease(self, job: str) -> dict[str, Any]:
        return await self.one(
            """select lease.*, run.id as run, run.state as run_state, run.cost from lease
            join run on run.lease_id = lease.id where lease.job_id = $1 order by lease.epoch desc limit 1""",
            job,
        )

    async def balances(self) -> dict[str, int]:
        """Each account's balance by the transfers themselves, credits less debits."""
        async with self.db.connection() as connection:
            rows = await connection.fetch(
                """select account.kind, coalesce(project.name, '') as name,
                    coalesce(sum(case when credit = account.id then amount else -amount end)
                        filter (where phase in ('single', 'post')), 0)::bigint as balance
                from account left join project on project.id = account.project_id
                    left join transfer on account.id in (debit, credit)
                group by account.kind, project.name"""
            )
        return {f"{row['kind']} {row['name']}".strip(): row["balance"] for row in rows}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    db = await Database.open(database_url, pool_size=4)
    numbers = itertools.count(10)
    signed: list[Receipt] = []

    def make_id(kind: str) -> str:
        return new_id(kind, exchange="test", now_ms=10**12 + next(numbers), random=0)

    def sign(receipt: Receipt) -> SignedReceipt:
        signed.append(receipt)
        return SignedReceipt(
            id=receipt.id, payload=payload(receipt), jws="signed", energy_joules=None, carbon_grams=None
        )

    context = Context(
        exchange=FACTS, new_id=make_id, sign_receipt=sign, sign_passport=lambda values: json.dumps(values)
    )
    row = ExchangeRow(
        facts=FACTS, ca_certificate="", ca_key_sealed=b"", signing_chain="", signing_key_sealed=b""
    )
    async with db.transaction() as tx:
        assert await create_exchange(tx.connection, row, now=START)
        for who in (RENTER, PROVIDER):
            await tx.keys.insert_project(id=who.project, name=who.project_name, now=START)
            await tx.keys.insert(
                id=who.key,
                project=who.project,
                name=who.key_name,
                secret_hash=who.key.encode(),
                roles=sorted(who.roles),
                now=START,
            )
        node = make_id("node")
        await nodes.invite(
            tx, caller=PROVIDER, secret_hash=b"secret", uses=1, ttl_seconds=60, new_id=make_id, now=START
        )
        new = nodes.NewNode(
            id=node,
            name="node-1",
            sign_key=b"s" * 32,
            seal_key=b"x" * 32,
            certificate_chain="",
            certificate_expires_at=START + timedelta(days=1),
        )
        await nodes.enrol(tx, node=new, secret_hash=b"secret", now=START)
    world = World(db=db, node=node, context=context, signed=signed)
    await world.connect()
    await world.report(OfferPosted(offer=ask()))
    yield world
    await db.close()
