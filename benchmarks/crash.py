"""kill -9 of the exchange and of PostgreSQL, in turn, under a load of submits; then read back what is there.

Every acknowledged submit must be there once, and none twice. PERAK_BENCH_KILLS sets the number of kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.local import READY_SECONDS_MAX, quiet_environment

KILLS = int(os.environ.get("PERAK_BENCH_KILLS", "200"))
CLIENTS = 8
"""Each submits one job after the other, and repeats a request that got no answer with the same key."""
LOAD_SECONDS = (0.5, 1.5)
"""How long the load runs undisturbed between two kills."""
RETRY_SECONDS = 0.02
ANSWER_SECONDS_MAX = 10.0
"""A connection that says nothing for so long is given up and the request repeated."""


def measure() -> Iterator[tuple[str, float, str]]:
    with _parts() as parts:
        load = Load(parts.url, parts.api_key)
        asyncio.run(_crash(parts, load))
        found = asyncio.run(_read_back(parts.database))
    yield "acknowledged", len(load.acknowledged), "submits"
    yield "lost", sum(found[name] == 0 for name in load.acknowledged.values()), "submits"
    yield "doubled", sum(count > 1 for count in found.values()), "submits"
    yield "next_ack_s", round(max(load.next_ack), 2), "s"
    yield "next_ack_p50_s", round(sorted(load.next_ack)[len(load.next_ack) // 2], 2), "s"


@dataclass
class Parts:
    """A PostgreSQL and an exchange on it, each started again as soon as it was killed."""

    state_dir: Path
    api_key: str
    url: str = ""
    database: str = ""
    _exchange: subprocess.Popen[str] | None = None

    def start(self) -> None:
        from perak.adapters.postgres import EmbeddedPostgres

        self._postgres = EmbeddedPostgres(self.state_dir)
        self.database = self._postgres.start()
        self._start_exchange("127.0.0.1:0")

    def _start_exchange(self, listen: str) -> None:
        private = {"PERAK_DATABASE_URL": self.database, "PERAK_OPERATOR_KEY": self.api_key}
        self._exchange = subprocess.Popen(
            [sys.executable, "-m", "perak", "exchange", "--listen", listen, "--fund", "1000000",
             "--state-dir", str(self.state_dir / "exchange"), "--log-level", "error"],
            env={**quiet_environment(), **private},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self._exchange.stdout is not None
        for line in self._exchange.stdout:
            if "ready" in line:
                self.url = line.split()[-1]
                return
        raise SystemExit("the exchange did not start")

    def kill_exchange(self) -> None:
        """Kill it and start it again; returns when it is ready."""
        assert self._exchange is not None
        self._exchange.kill()
        self._exchange.wait()
        self._start_exchange(urlsplit(self.url).netloc)

    def kill_postgres(self) -> None:
        """Kill the server's first process and start it again; returns when it has recovered."""
        lines = (self.state_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), signal.SIGKILL)
        while self._postgres.ready:
            time.sleep(0.001)
        self._postgres.stop()
        self._postgres.start()

    def stop(self) -> None:
        if self._exchange is not None:
            self._exchange.terminate()
            self._exchange.wait(READY_SECONDS_MAX)
        self._postgres.stop()


@contextlib.contextmanager
def _parts() -> Iterator[Parts]:
    state_dir = Path(tempfile.mkdtemp(prefix="perak-crash-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    parts = Parts(state_dir, f"perak_{secrets.token_urlsafe(32)}")
    try:
        parts.start()
        yield parts
    finally:
        parts.stop()
        shutil.rmtree(state_dir, ignore_errors=True)


@dataclass
class Load:
    """Who submits, what was acknowledged (idempotency key -> name), and how soon after each kill."""

    url: str
    api_key: str
    acknowledged: dict[str, str] = field(default_factory=dict)
    next_ack: list[float] = field(default_factory=list)
    killed_at: float | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False
    _submits: int = 0

    async def client(self) -> None:
        """Submit until stopped. Written on plain streams, so that the exchange is what is busy."""
        where = urlsplit(self.url)
        while not self.stopped:
            self._submits += 1
            name, key = f"crash-{self._submits}", secrets.token_hex(16)
            body = json.dumps({"job": {"name": name, "run": "true", "limits": {"max_cost": "0.01"}}}).encode()
            head = (
                f"POST /v1/jobs HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {self.api_key}\r\n"
                f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            await self._until_acknowledged(head + body, key, name)

    async def _until_acknowledged(self, request: bytes, key: str, name: str) -> None:
        while True:
            sent_at = time.perf_counter()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                status = await self._send(request)
                if status == 201:
                    self.acknowledged[key] = name
                    if self.killed_at is not None and sent_at > self.killed_at:
                        self.next_ack.append(time.perf_counter() - self.killed_at)
                        self.killed_at = None
                        self.answered.set()
                    return
                assert status >= 500, f"a submit was answered with {status}"
            await asyncio.sleep(RETRY_SECONDS)

    async def _send(self, request: bytes) -> int:
        """The status of the answer. A connection each: half of them die with what is killed anyway."""
        where = urlsplit(self.url)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(request)
                return int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
            finally:
                writer.close()


async def _crash(parts: Parts, load: Load) -> None:
    clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
    for number in range(KILLS):
        await asyncio.sleep(random.uniform(*LOAD_SECONDS))
        kill = parts.kill_exchange if number % 2 == 0 else parts.kill_postgres
        load.answered.clear()
        load.killed_at = time.perf_counter()
        await asyncio.to_thread(kill)
        await load.answered.wait()
        if (number + 1) % 20 == 0:
            print(f"{number + 1} kills, {len(load.acknowledged)} acknowledged", file=sys.stderr)
    load.stopped = True
    await asyncio.gather(*clients)


async def _read_back(database: str) -> Counter[str]:
    """How often each job is in the database; each has its hold."""
    import asyncpg

    connection = await asyncpg.connect(database)
    try:
        names = await connection.fetch("select name from job")
        held = await connection.fetchval("select count(distinct job_id) from transfer where kind = 'hold'")
        twice = await connection.fetchval(
            """select count(*) from (
                select from transfer where kind = 'hold' group by job_id having count(*) > 1) as twice"""
        )
    finally:
        await connection.close()
    assert (held, twice) == (len(names), 0), "a job has no hold, or two"
    return Counter(row["name"] for row in names)
