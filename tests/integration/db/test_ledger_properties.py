"""Money moved in random orders on a real PostgreSQL, against an auditor that keeps books of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perak.adapters.db.leases import PgLeases
from perak.adapters.db.ledger import PgLedger
from perak.adapters.db.settlements import PgSettlements
from perak.app.records import HeldFunds, RunEnd, SettledRun
from perak.domain.errors import InsufficientFunds
from perak.domain.outcome import Settlement

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
PROVIDER = "provider"
JOBS = {"job-1": "renter-1", "job-2": "renter-1", "job-3": "renter-2"}
"""Two jobs share a wallet, the third has one of its own."""

PEOPLE = """
insert into project (id, name, created_at)
    select name, name, now() from unnest(array['renter-1', 'renter-2', 'provider']) as name;
insert into account (kind, project_id)
    select kind, id from project, unnest(array['wallet', 'earnings']) as kind;
insert into api_key (id, project_id, name, secret_hash, roles, created_at)
    values ('key', 'renter-1', 'key', 'secret', array['renter'], now());
insert into node (id, project_id, name, sign_key, seal_key, certificate_chain, certificate_expires_at, state,
        enrolled_at)
    values ('node', 'provider', 'node', decode(repeat('01', 32), 'hex'), decode(repeat('02', 32), 'hex'), '',
        now(), 'online', now());
insert into offer (id, project_id, node_id, state, ask, region, cpu_milli, memory_bytes, disk_bytes,
        created_at, updated_at)
    values ('offer', 'provider', 'node', 'open',
        '{"region": "DE", "cpu_model": "CPU", "cpu_milli": 0, "memory_bytes": 0, "disk_bytes": 0}',
        'DE', 0, 0, 0, now(), now());
"""
JOB = """
with job as (
    insert into job (id, project_id, key_id, name, state, spec, file, hold_mode, created_at)
    values ($1, $2, 'key', 'job', 'queued',
        '{"name": "job", "run": "true", "resources": {"cpu_milli": 1000}}', '{}', 'full', now())
    returning id, project_id
), lease as (
    insert into lease (id, job_id, project_id, offer_id, offer_version, node_id, provider_project_id, epoch,
        state, price, devices_milli, cpu_milli, memory_bytes, disk_bytes, max_duration_seconds,
        duration_limited_by, granted_at)
    select 'lease of ' || id, id, project_id, 'offer', 1, 'node', 'provider', 1, 'ended', 0, 1, 0, 0, 0, 1,
        'max_duration', now() from job
    returning id, job_id, project_id
)
insert into run (id, lease_id, job_id, project_id, node_id, epoch, attempt, state, created_at)
select 'run of ' || job_id, id, job_id, project_id, 'node', 1, 1, 'exited', now() from lease
"""
ACCOUNTS = """
select account.kind, coalesce(account.project_id, '') as whose, account.posted, account.pending,
    coalesce(sum(case when credit = account.id then amount else -amount end)
        filter (where phase in ('single', 'post')), 0)::bigint as moved,
    coalesce(sum(amount) filter (where debit = account.id and phase = 'pending' and not exists (
        select from transfer resolved where resolved.pending_id = transfer.id)), 0)::bigint as reserved
from account left join transfer on account.id in (debit, credit)
group by account.id
order by account.id
"""
RESOLVE = """
insert into transfer (at, phase, kind, debit, credit, amount, pending_id)
select at, 'post', 'capture', debit, credit, amount + $2, id from transfer where id = $1
"""
SPEND = """
insert into transfer (at, phase, kind, debit, credit, amount)
select now(), 'single', 'fee', wallet.id, fees.id, $2 from account wallet, account fees
where wallet.kind = 'wallet' and wallet.project_id = $1 and fees.kind = 'fees'
"""
END = RunEnd(
    cause="exited",
    reported_cause="exited",
    started_at_ms=0,
    until_ms=1000,
    exit_code=0,
    detail=None,
    energy_joules=0.0,
    energy_method="test",
    energy_uncertainty_percent=0.0,
    log_bytes=0,
    outputs=None,
    evidence_jws=None,
)


@dataclass(frozen=True)
class Fund:
    project: str
    amount: int


@dataclass(frozen=True)
class Hold:
    job: str
    amount: int


@dataclass(frozen=True)
class Settle:
    """A run that cost `percent` of what is held ends, and its job goes on (`keep`) or ends too."""

    job: str
    percent: int
    keep: bool


@dataclass(frozen=True)
class Release:
    job: str


@dataclass(frozen=True)
class Forge:
    """Somebody tries what the ledger must refuse: to resolve a hold for more, or to spend what is held."""

    job: str
    excess: int


Step = Fund | Hold | Settle | Release | Forge

jobs = st.sampled_from(sorted(JOBS))
amounts = st.integers(1, 1000)
steps = st.lists(
    st.builds(Fund, st.sampled_from(sorted(set(JOBS.values()))), amounts)
    | st.builds(Hold, jobs, amounts)
    | st.builds(Hold, jobs, amounts)
    | st.builds(Settle, jobs, st.integers(0, 100), st.booleans())
    | st.builds(Release, jobs)
    | st.builds(Forge, jobs, amounts),
    min_size=8,
    max_size=24,
)


@dataclass
class Auditor:
    """What the accounts should be, by the plainest arithmetic, and from the steps alone."""

    wallets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JOBS.values(), 0))
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JOBS, 0))
    earned: int = 0
    fees: int = 0
    funded: int = 0

    def reserved(self, project: str) -> int:
        return sum(amount for job, amount in self.held.items() if JOBS[job] == project)

    def available(self, project: str) -> int:
        return self.wallets[project] - self.reserved(project)

    def balances(self) -> dict[tuple[str, str], int]:
        wallets = {("wallet", project): amount for project, amount in self.wallets.items()}
        return wallets | {
            ("earnings", PROVIDER): self.earned,
            ("fees", ""): self.fees,
            ("external", ""): -self.funded,
        }


@dataclass
class Books:
    """The ledger under test beside the auditor; every step is done in both, then all is compared."""

    db: Any
    ledger: PgLedger
    auditor: Auditor = field(default_factory=Auditor)
    stale: dict[str, list[HeldFunds]] = field(default_factory=dict)
    """Holds that were seen last, most of which are resolved by now."""

    async def take(self, step: Step) -> None:
        match step:
            case Fund():
                await self.ledger.fund(project=step.project, amount=step.amount, note="test", now=NOW)
                self.auditor.wallets[step.project] += step.amount
                self.auditor.funded += step.amount
            case Hold():
                await self._hold(step)
            case Settle():
                await self._settle(step)
            case Release():
                held = await self._held(step.job)
                await self.ledger.release(job=step.job, held=held, now=NOW)
                self.auditor.held[step.job] = 0
            case Forge():
                await self._forge(step)
        await self.compare()

    async def _hold(self, step: Hold) -> None:
        project = JOBS[step.job]
        hold = self.ledger.hold(project=project, job=step.job, amount=step.amount, now=NOW)
        if step.amount <= self.auditor.available(project):
            await hold
            self.auditor.held[step.job] += step.amount
        else:
            await self._is_refused(hold, InsufficientFunds)

    async def _settle(self, step: Settle) -> None:
        held = await self._held(step.job)
        cost = self.auditor.held[step.job] * step.percent // 100
        fee = cost // 50
        await self._pay(step, held, cost=cost, fee=fee)
        self.auditor.wallets[JOBS[step.job]] -= cost
        self.auditor.earned += cost - fee
        self.auditor.fees += fee
        self.auditor.held[step.job] = self.auditor.held[step.job] - cost if step.keep else 0

    async def _pay(self, step: Settle, held: list[HeldFunds], *, cost: int, fee: int) -> None:
        at = await PgLeases(self.db).of_run(f"run of {step.job}")
        assert at is not None
        settlements = PgSettlements(self.db)
        (facts,) = await settlements.facts([at])
        settled = SettledRun(
            at=at,
            end=END,
            facts=replace(facts, held=tuple(held)),
            money=Settlement(billed_seconds=1, cost=cost, payout=cost - fee, fee=fee),
            receipt=None,
            lease_state="ended",
            run_state="exited",
            job_state="queued" if step.keep else "succeeded",
            job_ended=not step.keep,
            reason=None,
        )
        await settlements.write([settled], now=NOW)

    async def _forge(self, step: Forge) -> None:
        for hold in await self._held(step.job):
            await self._is_refused(self.db.execute(RESOLVE, hold.transfer, step.excess))
        project = JOBS[step.job]
        amount = self.auditor.available(project) + step.excess
        await self._is_refused(self.db.execute(SPEND, project, amount))
        unresolved = {hold.transfer for hold in await self.ledger.held(step.job)}
        for hold in self.stale.get(step.job, []):
            if hold.transfer not in unresolved:
                twice = Settle(job=step.job, percent=0, keep=False)
                await self._is_refused(self._pay(twice, [hold], cost=hold.amount, fee=0))

    async def _held(self, job: str) -> list[HeldFunds]:
        held = await self.ledger.held(job)
        self.stale[job] = [*self.stale.get(job, []), *held][-3:]
        return held

    async def _is_refused(
        self,
        action: Awaitable[object],
        error: type[Exception] = asyncpg.IntegrityConstraintViolationError,
    ) -> None:
        before = await self._everything()
        with pytest.raises(error):
            async with self.db.transaction():
                await action
        assert await self._everything() == before, "a refused step left a trace"

    async def _everything(self) -> list[tuple[object, ...]]:
        transfers = await self.db.fetch("select * from transfer order by id")
        return [tuple(row) for row in (*transfers, *await self.db.fetch(ACCOUNTS))]

    async def compare(self) -> None:
        accounts = {(row["kind"], row["whose"]): row for row in await self.db.fetch(ACCOUNTS)}
        moved = {key: row["moved"] for key, row in accounts.items()}
        assert {key: amount for key, amount in moved.items() if amount} == {
            key: amount for key, amount in self.auditor.balances().items() if amount
        }
        assert sum(moved.values()) == 0
        for (kind, whose), row in accounts.items():
            kept = (row["moved"], row["reserved"]) if kind == "wallet" else (0, 0)
            assert (row["posted"], row["pending"]) == kept, "a row's balance is not the sum of its transfers"
            if kind == "wallet" and whose != PROVIDER:
                assert row["posted"] - row["pending"] == self.auditor.available(whose) >= 0
                assert await self.ledger.wallet_available(whose) == self.auditor.available(whose)
        for job, amount in self.auditor.held.items():
            assert sum(hold.amount for hold in await self.ledger.held(job)) == amount


@dataclass(frozen=True)
class Bench:
    """A connection to a prepared database, and the loop that it lives in."""

    runner: asyncio.Runner
    db: Any

    def play(self, steps: list[Step]) -> None:
        self.runner.run(self._play(steps))

    async def _play(self, steps: list[Step]) -> None:
        """One transaction that is rolled back, so that the next example begins with empty books."""
        transaction = self.db.transaction()
        await transaction.start()
        try:
            books = Books(db=self.db, ledger=PgLedger(self.db))
            for step in steps:
                await books.take(step)
        finally:
            await transaction.rollback()


async def _prepare(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute(PEOPLE)
    for job, project in JOBS.items():
        await connection.execute(JOB, job, project)
    return connection


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        connection = runner.run(_prepare(database_url))
        yield Bench(runner=runner, db=connection)
        runner.run(connection.close())


# The fixture is the same for all examples on purpose: each rolls back what it did.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_the_books_are_right_after_every_step_and_a_refused_one_leaves_no_trace(
    bench: Bench, steps: list[Step]
) -> None:
    bench.play(steps)


def test_a_life_with_every_kind_of_step(bench: Bench) -> None:
    bench.play(
        [
            Fund("renter-1", 1000),
            Hold("job-1", 600),
            Hold("job-2", 401),
            Hold("job-2", 400),
            Settle("job-1", 50, keep=True),
            Forge("job-1", 1),
            Hold("job-1", 1),
            Release("job-2"),
            Hold("job-1", 100),
            Settle("job-1", 33, keep=True),
            Settle("job-1", 100, keep=False),
            Forge("job-1", 1),
            Settle("job-1", 0, keep=False),
            Fund("renter-2", 1),
            Hold("job-3", 1),
            Settle("job-3", 100, keep=True),
        ]
    )


def test_the_query_of_the_ledger_s_page_finds_the_same_balances(bench: Bench) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")
    query = page.partition("```sql\n")[2].partition("```")[0]

    async def compare() -> None:
        transaction = bench.db.transaction()
        await transaction.start()
        books = Books(db=bench.db, ledger=PgLedger(bench.db))
        for step in (Fund("renter-1", 1000), Hold("job-1", 600), Settle("job-1", 50, keep=True)):
            await books.take(step)
        ours = {(row["kind"], row["whose"] or None): row for row in await bench.db.fetch(ACCOUNTS)}
        for row in await bench.db.fetch(query):
            expected = ours[row["kind"], row["project_id"]]
            assert (row["balance"], row["held"]) == (expected["moved"], expected["reserved"])
        await transaction.rollback()

    bench.runner.run(compare())
