"""The market's batches: every few seconds one replica clears deferrable jobs together, in a child process.

Instant matches never wait for it: it holds no lock of theirs while it solves, and a job that waits for a
batch is matched like any other after a few of them, whatever became of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
from functools import cache

import msgspec

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.prices import price_profile
from perak.adapters.db.workloads import PgWorkloads
from perak.app import batch as batches
from perak.app.effects import Effect
from perak.domain.market.batch import Batch, Part, make_batch
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services

BATCHES_WAITED = 4
"""A deferrable job waits at most for so many batches before instant matches take it, too."""
READY_SECONDS_MAX = 180.0
"""The solver compiles at its first start on a machine, half a minute where nothing else runs."""
PAUSE_SECONDS = 30.0
"""After a clearing that failed, until the next: its child has ended and loads anew."""
ANSWER_BYTES_MAX = 2**22
"""A plan of 256 bids has some 30 KB."""
SOLVER = (sys.executable, "-m", "perak.sim.batch_solver")

_log = get_logger(__name__)


class SolverFailed(Exception):
    """The child ended, answered something else, or took too long."""


@cache
def solver_installed() -> bool:
    """Whether the exchange has what clears batches: the extra `market`."""
    return importlib.util.find_spec("numba") is not None


def wait_seconds(services: Services) -> float:
    """How long the instant match leaves a job to the batches."""
    return BATCHES_WAITED * services.periods.batch_seconds if solver_installed() else 0.0


class Solver:
    """The child process; it is started when there is something to clear, and ended when it fails."""

    def __init__(self, command: tuple[str, ...] = SOLVER) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False

    @property
    def running(self) -> bool:
        return self._ready and self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and wait until it has loaded. Raises SolverFailed."""
        await self.close()
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                await self._start()
        except (TimeoutError, OSError) as error:
            raise SolverFailed(f"the solver did not start: {error!r}") from None
        finally:
            if not self._ready:
                await self.close()

    async def solve(self, batch: Batch, *, seconds: float) -> list[Part]:
        """The plan of a solver that runs. Raises SolverFailed, and ends it, where none comes in time."""
        parts: list[Part] | None = None
        try:
            async with asyncio.timeout(seconds):
                parts = msgspec.json.decode(await self._asked(msgspec.json.encode(batch)), type=list[Part])
        except (TimeoutError, OSError, ValueError, msgspec.MsgspecError) as error:
            raise SolverFailed(f"no plan within {seconds:g} s: {error!r}") from None
        finally:
            if parts is None:
                await self.close()
        return parts

    async def close(self) -> None:
        process, self._process, self._ready = self._process, None, False
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=ANSWER_BYTES_MAX,
            # What opens the database is none of its business.
            env={name: value for name, value in os.environ.items() if not name.startswith("PERAK_")},
        )
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise OSError("it ended at once")
        self._ready = True

    async def _asked(self, line: bytes) -> bytes:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()
        return await self._process.stdout.readline()


async def clear_batches(services: Services, *, command: tuple[str, ...] = SOLVER) -> None:
    """For ever: a batch every few seconds, by the replica that is first to it."""
    every = services.periods.batch_seconds
    if not every or not solver_installed():
        await asyncio.Event().wait()
    solver = Solver(command)
    try:
        while True:
            await asyncio.sleep(every)
            try:
                await clear_batch(services, solver)
            except SolverFailed as error:
                _log.warning("a batch could not be cleared; instant matches go on", error=str(error))
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await solver.close()


async def clear_batch(services: Services, solver: Solver) -> None:
    """One batch, unless another replica clears one now. Raises SolverFailed."""
    async with services.db.transaction() as duty:
        if not await duty.alone("batch"):
            return
        batch = await _snapshot(services)
        if not batch.bids:
            return
        if solver.running:
            parts = await solver.solve(batch, seconds=services.periods.batch_solve_seconds)
            await services.commit(lambda tx: _commit(services, tx, parts))
            return
    # It may compile for minutes, which nobody waits for; the next batch is cleared.
    await solver.start()


async def _snapshot(services: Services) -> Batch:
    async with services.db.transaction() as tx:
        jobs, offers = await batches.snapshot(tx, workloads=PgWorkloads(tx.connection))
        prices = await price_profile(tx.connection, now=clock.now()) if jobs else None
    grid = services.context.grid.now
    # Each job is held against every offer, while others want to be answered.
    return await asyncio.to_thread(make_batch, jobs, offers, now=clock.now(), grid=grid, prices=prices)


async def _commit(services: Services, tx: PgTransaction, parts: list[Part]) -> tuple[None, list[Effect]]:
    effects = await batches.commit(
        tx,
        parts,
        new_id=services.context.new_id,
        now=clock.now(),
        workloads=PgWorkloads(tx.connection),
        grid=services.context.grid.now,
    )
    return None, effects
