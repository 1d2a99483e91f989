"""Full settlements a second: capture, fee, payout, refund and signed receipt, of 16 nodes at once.

Each node reports the end of one run after the other, when the one before is durable. They are applied as the
exchange applies them, those that wait together in one transaction (`perak.server.committer`); the signatures
of the reports are checked before that, and not here. The CPU time that one settlement takes, in the exchange
and in PostgreSQL, depends less on what else the machine does than the rate.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import uvloop

from perak.adapters.db.database import Database
from perak.adapters.db.migrate import upgrade
from perak.adapters.postgres import EmbeddedPostgres
from perak.adapters.postgres.leftovers import processes_in
from perak.app.context import Context
from perak.app.records import Caller
from perak.domain.offer import OfferAsk
from perak.domain.report import Report, RunExited
from perak.server import clock
from perak.server.committer import ReportCommitter
from perak.server.hub import Hub
from perak.server.identity import open_identity
from perak.server.metrics import Metrics
from perak.server.settings import Settings
from perak.server.transact import Transact
from perak.wire.jobfile import parse_job

NODES = 16
RUNS = 80
"""Of each node."""
WARM_UP = 8
"""Settled before the clock starts, so that each connection is open and knows its statements."""
PROJECTS = 50
"""Renters: each has a wallet, whose row its settlements take in turn."""
LIVED_SECONDS = 60
PRICE = 360_000
HELD = 1_000_000
ROLES = frozenset({"renter"})
ASK = OfferAsk(
    region="DE", cpu_model="CPU", cpu_milli=10**9, memory_bytes=10**15, disk_bytes=10**15, price_cpu=PRICE
)

FILL = f"""
insert into project (id, name, created_at)
    select 'p' || n, 'p' || n, now() from generate_series(0, {PROJECTS}) n;
insert into account (kind, project_id) select kind, id from project, unnest(array['wallet', 'earnings']) kind;
insert into transfer (at, phase, kind, debit, credit, amount)
    select now(), 'single', 'fund', external.id, wallet.id, {10 * HELD * NODES * RUNS}
    from account external, account wallet where external.kind = 'external' and wallet.kind = 'wallet';
insert into api_key (id, project_id, name, secret_hash, roles, created_at)
    values ('key', 'p0', 'key', 'x', '{{renter}}', now());
insert into node (id, project_id, name, sign_key, seal_key, certificate_chain, certificate_expires_at, state,
    enrolled_at)
    select 'node-' || n, 'p0', 'node-' || n, sha256(n::text::bytea), decode(repeat('00', 32), 'hex'),
        '', now(), 'online', now()
    from generate_series(0, {NODES - 1}) n;
"""
MULTIPLY = f"""
insert into job (id, project_id, key_id, name, state, spec, file, hold_mode, created_at, epoch, attempts)
    select 'job-' || n, 'p' || 1 + n % {PROJECTS}, 'key', 'job', 'running', spec, file, 'full', now(), 1, 1
    from job, generate_series(0, {NODES * RUNS - 1}) n;
insert into lease (id, job_id, project_id, offer_id, offer_version, node_id, provider_project_id, epoch,
    state, price, devices_milli, cpu_milli, memory_bytes, disk_bytes, max_duration_seconds,
    duration_limited_by, granted_at)
    select 'lease-' || id, id, project_id, 'offer-' || n, 1, 'node-' || n, 'p0', 1, 'active', {PRICE}, 1000,
        1000, 1000, 1000, 3600, 'max_duration', now() - interval '1 hour'
    from job, lateral (select substr(id, 5)::int % {NODES} as n) node where job.state = 'running';
update offer set used_cpu_milli = {RUNS * 1000}, used_memory_bytes = {RUNS * 1000},
    used_disk_bytes = {RUNS * 1000};
insert into run (id, lease_id, job_id, project_id, node_id, epoch, attempt, state, created_at, started_at)
    select 'run-' || substr(job_id, 5), id, job_id, project_id, node_id, 1, 1, 'running', now(), now()
    from lease;
insert into transfer (at, phase, kind, debit, credit, amount, job_id)
    select now(), 'pending', 'hold', wallet.id, escrow.id, {HELD}, job.id
    from job join account wallet on wallet.kind = 'wallet' and wallet.project_id = job.project_id
        join account escrow on escrow.kind = 'escrow'
    where job.state = 'running';
"""


def measure() -> Iterator[tuple[str, float, str]]:
    folder = Path(tempfile.mkdtemp(prefix="perak-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        # The exchange's own loop.
        with EmbeddedPostgres(folder) as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            taken = runner.run(_measured(url, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yield "settlements_per_s", round(1 / taken.seconds, 1), "settlements/s"
    yield "exchange_cpu", round(1000 * taken.exchange, 2), "ms/settlement"
    yield "postgres_cpu", round(1000 * taken.postgres, 2), "ms/settlement"


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of one settlement: by the clock, of this process's CPU and of the server's."""

    seconds: float
    exchange: float
    postgres: float


async def _measured(url: str, folder: Path) -> Taken:
    await upgrade(url)
    db = await Database.open(url)
    try:
        async with db.transaction() as tx:
            settings = Settings(database=url, state_dir=folder / "exchange")
            identity, _ = await open_identity(tx.connection, settings, now=clock.now())
        context = Context(
            exchange=identity.facts,
            new_id=clock.NewId(identity.facts.name),
            sign_receipt=identity.sign_receipt,
            sign_passport=identity.sign_passport,
        )
        apply = ReportCommitter(Transact(db, Hub("bench"), Metrics()), context)
        await _fill(db)

        async def settle(node: int, runs: range) -> None:
            for run in runs:
                await apply(f"node-{node}", [_exited(node, run, at=clock.now())])

        await asyncio.gather(*(settle(node, range(WARM_UP)) for node in range(NODES)))
        begin = _spent(folder)
        await asyncio.gather(*(settle(node, range(WARM_UP, RUNS)) for node in range(NODES)))
        spent = [after - before for before, after in zip(begin, _spent(folder), strict=True)]
        async with db.connection() as connection:
            receipts = await connection.fetchval("select count(*) from receipt where cost > 0")
            kinds = await connection.fetchval("select count(*) from transfer where kind in ('payout', 'fee')")
        assert (receipts, kinds) == (NODES * RUNS, 2 * NODES * RUNS), (receipts, kinds)
        return Taken(*(seconds / (NODES * (RUNS - WARM_UP)) for seconds in spent))
    finally:
        await db.close()


def _spent(folder: Path) -> tuple[float, float, float]:
    """The clock, the CPU time of this process and that of the server's processes, in seconds."""
    ticks = 0
    for pid in processes_in(folder / "postgres" / "data"):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return time.perf_counter(), time.process_time(), ticks / os.sysconf("SC_CLK_TCK")


async def _fill(db: Database) -> None:
    """Running jobs with their money held, on all nodes."""
    async with db.transaction() as tx:
        now = clock.now()
        await tx.connection.execute(FILL)
        for number in range(NODES):
            node = await tx.nodes.lock(f"node-{number}")
            assert node is not None
            await tx.offers.post(id=f"offer-{number}", node=node, ask=ASK, now=now)
        tree: dict[str, object] = {"name": "job", "run": "true"}
        caller = Caller(
            project="p1", project_name="p1", key="key", key_name="key", roles=frozenset({"renter"})
        )
        spec = parse_job(tree, workdir_digest=None)
        await tx.jobs.insert(id="first", caller=caller, spec=spec, tree=tree, hold_mode="full", now=now)
        await tx.connection.execute(MULTIPLY)
    async with db.connection() as connection:
        # As autovacuum would have: without it the planner believes that these tables are empty.
        await connection.execute("analyze")


def _exited(node: int, run: int, *, at: datetime) -> Report:
    number, until = run * NODES + node, int(at.timestamp() * 1000)
    body = RunExited(
        run=f"run-{number}",
        lease=f"lease-job-{number}",
        epoch=1,
        started_at=until - LIVED_SECONDS * 1000,
        ended_at=until,
        exit_code=0,
        cause="exited",
        detail=None,
        cpu_seconds=1.0,
        memory_peak_bytes=None,
        energy_joules=10.0,
        energy_method="model: benchmark",
        energy_uncertainty_percent=50.0,
        log_bytes=0,
    )
    return Report(seq=run + 1, node=f"node-{node}", at=until, body=body, jws="e30.e30.c2ln" + "x" * 4000)
