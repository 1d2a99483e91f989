"""2,000 agents on one exchange process: its processor time, its memory, and the storm after it was killed.

The agents are scripted (`benchmarks.fleet_agents`): real keys, frames, signatures and back-off, over
loopback without TLS, in a process of their own. Each has an offer; RUNS of them hold a lease whose run they
meter every 5 s. They are enrolled in one transaction by the product's own database functions, because 2,000
invites would take longer than the measurement. PERAK_BENCH_AGENTS sets another number of them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.fleet_agents import Fleet, Member, Tally
from benchmarks.local import READY_SECONDS_MAX, processes_below, quiet_environment
from perak import AsyncClient

AGENTS = int(os.environ.get("PERAK_BENCH_AGENTS", "2000"))
RUNS = min(100, AGENTS // 2)
"""Leases that live through the storm."""
SETTLE_SECONDS = 10.0
WINDOW_SECONDS = 30.0
CALM_SECONDS = 6.0
"""After the storm: longer than a beat, so that what was fenced or closed by mistake would show."""
GIVE_UP_SECONDS = 120.0


def measure() -> Iterator[tuple[str, float, str]]:
    with running_parts() as parts:
        bare_mib = parts.exchange_mib()
        with _agents(parts, asyncio.run(_enrol(parts))) as seen:
            _wait("all agents are there", seen, lambda tally: tally.offered == AGENTS)
            asyncio.run(_submit(parts))
            _wait("all leases are held", seen, lambda tally: tally.running == RUNS)
            time.sleep(SETTLE_SECONDS)
            shares = _core_shares(parts)
            assert seen().open == AGENTS, seen()
            grown_mib = parts.exchange_mib() - bare_mib
            killed_at = time.monotonic()
            parts.kill_exchange()
            ready_at = time.monotonic()
            _wait("the storm has begun", seen, lambda tally: tally.at > killed_at + 1 and tally.open < AGENTS)
            back = _wait(
                "all agents are back", seen, lambda tally: tally.at > ready_at and tally.open == AGENTS
            )
            time.sleep(CALM_SECONDS)
            last = seen()
        leases = asyncio.run(_leases(parts))
    assert (last.open, last.running, last.epochs) == (AGENTS, RUNS, RUNS), last
    assert leases == {("active", 1): RUNS}, f"a run was killed: {leases}"
    print(f"the exchange was ready {ready_at - killed_at:.1f} s after it was killed; {last}", file=sys.stderr)
    yield "agents", AGENTS, "agents"
    yield "exchange_core_share", round(shares[0], 3), "cores"
    yield "postgres_core_share", round(shares[1], 3), "cores"
    yield "kib_per_agent", round(grown_mib * 1024 / AGENTS, 1), "KiB"
    yield "storm_s", round(back.at - killed_at, 2), "s"


@dataclass
class Parts:
    """A PostgreSQL and an exchange process on it."""

    state_dir: Path
    api_key: str
    database: str
    url: str = ""
    exchange: subprocess.Popen[str] | None = None

    def start_exchange(self, listen: str) -> None:
        private = {
            "PERAK_DATABASE_URL": self.database,
            "PERAK_OPERATOR_KEY": self.api_key,
            # All of them come from one address here, which an exchange would take for one stranger.
            "PERAK_CONNECTIONS_PER_ADDRESS": str(2 * AGENTS),
        }
        self.exchange = subprocess.Popen(
            [sys.executable, "-m", "perak", "exchange", "--listen", listen, "--fund", "1000000",
             "--state-dir", str(self.state_dir / "exchange"), "--log-level", "error"],
            env={**quiet_environment(), **private},
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.exchange.stdout is not None
        for line in self.exchange.stdout:
            if "ready" in line:
                self.url = line.split()[-1]
                return
        raise SystemExit("the exchange did not start")

    def kill_exchange(self) -> None:
        """Kill it and start it again; returns when it is ready."""
        assert self.exchange is not None
        self.exchange.kill()
        self.exchange.wait()
        self.start_exchange(urlsplit(self.url).netloc)

    def exchange_mib(self) -> float:
        """Anonymous memory: shares in files change with every other Perak on this machine."""
        assert self.exchange is not None
        return sum(_anonymous_mib(pid) for pid in processes_below(self.exchange.pid))

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far of the exchange's processes, and of PostgreSQL's."""
        assert self.exchange is not None
        pid_file = self.state_dir / "postgres" / "data" / "postmaster.pid"
        postmaster = int(pid_file.read_text().splitlines()[0])
        exchange, postgres = (_cpu_seconds_below(pid) for pid in (self.exchange.pid, postmaster))
        return exchange, postgres


def _anonymous_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no Pss_Anon of {pid}")


def _cpu_seconds_below(pid: int) -> float:
    ticks = 0
    for below in processes_below(pid):
        with contextlib.suppress(OSError):
            fields = (Path("/proc") / str(below) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])  # its own, and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def _core_shares(parts: Parts) -> tuple[float, float]:
    begin, before = time.perf_counter(), parts.cpu_seconds()
    time.sleep(WINDOW_SECONDS)
    after, seconds = parts.cpu_seconds(), time.perf_counter() - begin
    return (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds


@contextlib.contextmanager
def running_parts() -> Iterator[Parts]:
    """PostgreSQL and an exchange, started anew and thrown away in the end."""
    from perak.adapters.postgres import EmbeddedPostgres

    state_dir = Path(tempfile.mkdtemp(prefix="perak-fleet-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    try:
        with EmbeddedPostgres(state_dir) as database:
            parts = Parts(state_dir, f"perak_{secrets.token_urlsafe(32)}", database)
            try:
                parts.start_exchange("127.0.0.1:0")
                yield parts
            finally:
                if parts.exchange is not None:
                    parts.exchange.terminate()
                    parts.exchange.wait(READY_SECONDS_MAX)
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


async def _enrol(parts: Parts) -> Path:
    """Enrol the fleet; the file that its agents read."""
    from perak.adapters.db.database import Database
    from perak.server import clock
    from perak.server.certificates import node_certificate
    from perak.server.identity import open_identity
    from perak.server.settings import Settings
    from perak.wire.identity import chain_from_pem
    from perak.wire.signing import SealKey, SigningKey

    settings = Settings(database=parts.database, state_dir=parts.state_dir / "exchange")
    db = await Database.open(parts.database)
    members = []
    try:
        async with db.transaction() as tx:
            now = clock.now()
            identity, _ = await open_identity(tx.connection, settings, now=now)
            project = await tx.connection.fetchval("select project_id from api_key limit 1")
            new_id = clock.NewId(identity.facts.name)
            for number in range(AGENTS):
                node, seed = new_id("node"), secrets.token_bytes(32)
                key = SigningKey.from_seed(seed)
                made = node_certificate(identity.authority, node=node, sign_key=key.public_bytes, now=now)
                await tx.nodes.insert(
                    id=node,
                    project=project,
                    name=f"node-{number}",
                    sign_key=key.public_bytes,
                    seal_key=SealKey.generate().public_bytes,
                    certificate_chain=made.chain_pem,
                    certificate_expires_at=made.expires_at,
                    now=now,
                )
                chain = tuple(base64.b64encode(der).decode() for der in chain_from_pem(made.chain_pem))
                members.append(Member(node=node, seed=base64.b64encode(seed).decode(), chain=chain))
        async with db.connection() as connection:
            # As autovacuum would have: without it the planner believes that these tables are empty.
            await connection.execute("analyze")
    finally:
        await db.close()
    file = parts.state_dir / "fleet.json"
    file.write_bytes(msgspec.json.encode(Fleet(url=parts.url, members=members)))
    return file


@contextlib.contextmanager
def _agents(parts: Parts, fleet: Path) -> Iterator[Callable[[], Tally]]:
    """The agents' process; what they have seen last."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet_agents", str(fleet)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    tallies = [Tally(at=0, open=0, offered=0, running=0, epochs=0, refused=0)]

    def read() -> None:
        for line in process.stdout or ():
            tallies[0] = msgspec.json.decode(line, type=Tally)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lambda: tallies[0]
    finally:
        process.kill()
        process.wait()
        reader.join()


def _wait(what: str, seen: Callable[[], Tally], met: Callable[[Tally], bool]) -> Tally:
    begin = time.monotonic()
    while not met(tally := seen()):
        if time.monotonic() - begin > GIVE_UP_SECONDS:
            raise SystemExit(f"after {GIVE_UP_SECONDS:.0f} s still not: {what}; {tally}")
        time.sleep(0.02)
    return tally


async def _submit(parts: Parts) -> None:
    async with AsyncClient(url=parts.url, api_key=parts.api_key) as client:
        for number in range(RUNS):
            await client.submit({"name": f"fleet-{number}", "run": "sleep 3600", "resources": {"cpu": 1}})


async def _leases(parts: Parts) -> dict[tuple[str, int], int]:
    """How many leases there are by state and epoch."""
    import asyncpg

    connection = await asyncpg.connect(parts.database)
    try:
        rows = await connection.fetch("select state, epoch, count(*) as n from lease group by 1, 2")
    finally:
        await connection.close()
    return {(row["state"], row["epoch"]): row["n"] for row in rows}
