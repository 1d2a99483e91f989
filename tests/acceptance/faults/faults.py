"""What the tests of faults share: a Perak with quick beats, a counting job, its follower, the books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.local import processes_below, quiet_environment

from perak import Client, PerakError
from perak.client.config import Target
from perak.client.events import End, Log, State, Warned

T = TypeVar("T")

FULL_LENGTH = os.environ.get("FAULTS_LENGTH") == "full"
"""`make faults-full`: with the periods that operators have by default, and cuts of 60 s and of 20 min."""
BEAT_SECONDS = 5.0 if FULL_LENGTH else 0.5
"""A tenth of the real beat: a node is suspected after 1.5 s."""
PERIODS = {} if FULL_LENGTH else {"PERAK_BEAT_SECONDS": str(BEAT_SECONDS), "PERAK_LOST_AFTER_SECONDS": "4"}
QUICK = {**PERIODS, "PERAK_TIERS": "bubblewrap"}
"""Other sandbox tiers are attacked before they are offered, which is no part of a fault."""
PATIENCE_SECONDS = 420 if FULL_LENGTH else 100
"""For anything to come about; a busy machine needs some, and nobody waits where it is quicker."""
ENDED = ("succeeded", "failed", "cancelled")


def until(condition: Callable[[], T | None], what: str, *, seconds: float = PATIENCE_SECONDS) -> T:
    """Look again and again until there is something; what it was."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def counting(name: str, **more: Any) -> dict[str, Any]:
    """A job that writes `tick 1`, `tick 2` … until it is told to finish: what is lost or doubled shows."""
    script = "i=0; until [ -e finish ]; do i=$((i+1)); echo tick $i; sleep 0.1; done"
    return {"name": name, "run": script, **more}


def finish(agent_dir: Path, run: str) -> None:
    """Tell a counting job to finish."""
    (run_folder(agent_dir, run) / "scratch" / "work" / "finish").touch()


def is_whole(log: bytes) -> bool:
    """Whether the log of a counting job lacks, repeats and confuses nothing."""
    return log == b"".join(f"tick {number}\n".encode() for number in range(1, last_tick(log) + 1)) != b""


def last_tick(log: bytes) -> int:
    found = re.findall(rb"tick (\d+)\n", log)
    return int(found[-1]) if found else 0


@dataclass
class Followed:
    """A renter that follows a job, whatever happens meanwhile; `shown` is what it saw, by attempt."""

    target: Target
    job: str
    shown: dict[int, bytes] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    ended: bool = False
    taken_back: str = ""
    """What was shown once, and was missing or different when it was read again."""

    def __post_init__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self.ended:
            # A fault that outlasts the client's patience: a person would type the command again.
            with contextlib.suppress(PerakError), Client(target=self.target) as client:
                self._read(client)
            time.sleep(0.1)

    def _read(self, client: Client) -> None:
        again: dict[int, bytes] = {}
        for event in client.events(self.job):
            match event:
                case Log():
                    before = self.shown.get(event.attempt, b"")
                    log = again[event.attempt] = again.get(event.attempt, b"") + event.data
                    if not (log.startswith(before) or before.startswith(log)):
                        self.taken_back += f"{before!r} became {log!r}; "
                    self.shown[event.attempt] = max(before, log, key=len)
                case State() | Warned():
                    self.steps.append(event.event.detail)
                case End():
                    self.ended = True

    def see(self, tick: int, *, attempt: int = 1) -> None:
        """Wait until that tick was shown."""
        until(lambda: last_tick(self.shown.get(attempt, b"")) >= tick, f"tick {tick} of attempt {attempt}")

    @property
    def seen(self) -> int:
        """The last tick that was shown of the latest attempt."""
        return last_tick(self.shown[max(self.shown)]) if self.shown else 0


class Up:
    """`perak up` on a state folder, with quick beats."""

    def __init__(
        self, state_dir: Path, *options: str, env: dict[str, str], inside: Sequence[str] = ()
    ) -> None:
        self.state_dir = state_dir
        self.said: list[str] = []
        command = [
            *inside,
            sys.executable,
            "-m",
            "perak",
            "up",
            "--state-dir",
            str(state_dir),
            "--port",
            "0",
            *options,
        ]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**quiet_environment(), **QUICK, **env},
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        until(lambda: any("perak ready" in line for line in self.said) or self.process.poll(), "perak up")
        assert self.process.poll() is None, "".join(self.said)
        found = json.loads((state_dir / "local.json").read_text())
        self.target = Target(url=found["url"], api_key=found["api_key"])
        self.client = Client(target=self.target)
        self.database = environment_of(self.pid("exchange"))["PERAK_DATABASE_URL"]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)

    def pid(self, part: str) -> int:
        """The process of a part that runs now: exchange, agent, database or one of its backends."""
        sign = {
            "exchange": " -m perak exchange ",
            "agent": " -m perak agent ",
            "database": "config_file=",
            "database's backend": "postgres: perak perak",
        }
        return until(lambda: self._pids(sign[part]), f"no {part} runs")[0]

    def _pids(self, sign: str) -> list[int]:
        below = processes_below(self.process.pid)
        return [pid for pid, command in below.items() if sign in command and pid != self.process.pid]

    def follow(self, job: str) -> Followed:
        return Followed(self.target, job)

    def kill(self, part: str) -> int:
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


@contextlib.contextmanager
def up(state_dir: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Up]:
    running = Up(state_dir, *options, env=env or {})
    try:
        yield running
    finally:
        running.stop()


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def run_folder(agent_dir: Path, run: str) -> Path:
    return agent_dir / "runs" / run


def shim_pid(agent_dir: Path, run: str) -> int:
    pid: int = json.loads((run_folder(agent_dir, run) / "shim.json").read_text())["pid"]
    return pid


def job_pid(agent_dir: Path, run: str) -> int:
    """The job's own first process: the shell that runs its script."""
    below = processes_below(shim_pid(agent_dir, run))
    (pid,) = [pid for pid, command in below.items() if command.startswith("/bin/sh -e /job/run")]
    return pid


def ended(client: Client, job: str) -> Any:
    """The job once it has ended."""
    return until(lambda: now if (now := patiently(client, job)).state in ENDED else None, "the job's end")


def patiently(client: Client, job: str) -> Any:
    """The job, asked for until the exchange answers."""

    def ask() -> Any:
        with contextlib.suppress(PerakError):
            return client.job(job)
        return None

    return until(ask, "an answer of the exchange")


BOOKS = """
select
    (select count(*) from transfer where phase = 'pending' and job_id in
        (select id from job where state in ('succeeded', 'failed', 'cancelled'))
        and not exists (select from transfer done where done.pending_id = transfer.id)) as held_for_ended,
    (select count(*) from (select run_id from transfer where kind = 'payout' group by run_id
        having count(*) > 1) as twice) as paid_twice,
    (select count(*) from lease where state in ('ended', 'fenced') and exists
        (select from run where run.lease_id = lease.id and run.state in ('assigned', 'preparing', 'running')))
        as half_ended,
    (select coalesce(sum(cost), 0) from run) - (select coalesce(sum(amount), 0) from transfer
        where kind in ('payout', 'fee')) as unpaid,
    (select coalesce(sum(amount), 0) from transfer where kind = 'capture' and phase = 'post')
        - (select coalesce(sum(amount), 0) from transfer where kind in ('payout', 'fee')) as in_escrow,
    (select count(*) from run where cost > 0 and not exists
        (select from receipt where receipt.run_id = run.id)) as without_receipt,
    (select count(*) from account where limited and posted <> (
        select coalesce(sum(case when credit = account.id then amount else -amount end), 0) from transfer
        where account.id in (debit, credit) and phase in ('single', 'post'))) as wrong_balances,
    (select count(*) from account where limited and pending <> (
        select coalesce(sum(amount), 0) from transfer held where debit = account.id and phase = 'pending'
        and not exists (select from transfer done where done.pending_id = held.id))) as wrong_holds,
    (select count(*) from offer where used_cpu_milli <> (select coalesce(sum(cpu_milli), 0) from lease
        where lease.offer_id = offer.id and lease.state in ('active', 'suspected'))) as wrong_capacity,
    (select count(*) from run where log_bytes <> (select coalesce(sum(length(data)), 0) from log_chunk
        where run_id = run.id) + coalesce((select log_archive.log_bytes from log_archive
        where run_id = run.id), 0)) as wrong_logs
"""
"""Each figure is zero whatever happened, once no transaction is under way."""


def check_books(database: str) -> None:
    """Nothing is paid twice, held for nothing, out of balance or without its receipt."""
    (row,) = rows(database, BOOKS)
    assert {name: value for name, value in row.items() if value} == {}


def rows(database: str, sql: str) -> list[dict[str, Any]]:
    """What a query finds."""
    return asyncio.run(_rows(database, sql))


async def _rows(database: str, sql: str) -> list[dict[str, Any]]:
    import asyncpg

    connection = await asyncpg.connect(database)
    try:
        return [dict(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()
