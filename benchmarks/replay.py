"""A day of Philly's jobs through the exchange's own API, with simulated agents: is a job or a cent lost?

The trace's busiest day, every eighth job, 720 times as fast: each job is submitted by a renter of its own
virtual cluster when it came, asks for as many GPUs as it had, and "runs" for as long as it did, at most for
six hours. Renters, wallets, holds, the market, leases, signed reports, settlement and receipts are the
product's; agents are `benchmarks.replay_agents`, and lose their connection again and again. Wallets are so
small that money is waited for, too. In the end `perak audit`'s code counts everything again.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.data import PHILLY_JOBS, missing
from benchmarks.replay_agents import SleepingAgent, enrolled
from perak import AsyncClient, PerakError
from perak.wire import api

EVERY = 8
FASTER = 720.0
"""A day in two minutes."""
LONGEST_SECONDS = 6 * 3600.0
"""Of the trace; longer jobs, a few of a hundred, would make the replay as long as they are."""
NODES = (8, 8, 2, 2, 2, 2)
"""GPUs of each node: the thinned day keeps 19 of 24 busy."""
LARGEST_GANG = max(NODES)
"""A job is on one node: larger ones are left out, and counted."""
WALLET = "8.00"
CUT_SECONDS = 5.0
"""Every so often an agent loses its connection."""
ENDS_SECONDS_MAX = 240.0
"""What has not ended this long after the last arrival is lost."""
LOOK_SECONDS = 0.5
ACTIVE = ("queued", "leased", "running", "cancelling")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job of the replay: submitted `at` seconds after the begin, it runs `seconds` on `gpus`."""

    at: float
    seconds: float
    gpus: int
    renter: str


@dataclass(slots=True)
class Outcome:
    """What became of the replay; waits are from submission to start, in seconds of this machine."""

    jobs: int = 0
    lost: int = 0
    """Not ended well, or without exactly one receipt."""
    negative_balances: int = 0
    """Looks at a wallet that found less than nothing in it."""
    refused_for_funds: int = 0
    run_again: int = 0
    cuts: int = 0
    waits: list[float] = field(default_factory=list)


def measure() -> Iterator[tuple[str, float, str]]:
    reason = missing(PHILLY_JOBS)
    if reason is not None:
        print(reason, file=sys.stderr)
        return
    from benchmarks.fleet import running_parts
    from perak.server.audit_command import audit_database

    arrivals, left_out = philly_day(PHILLY_JOBS)
    with running_parts() as parts:
        began = time.monotonic()
        outcome = asyncio.run(replay(parts.url, parts.api_key, arrivals, nodes=NODES))
        seconds = time.monotonic() - began
        report = asyncio.run(audit_database(parts.database, None))
    for line in report.lines():
        print(line, file=sys.stderr)
    yield "replay_jobs", outcome.jobs, "jobs"
    yield "replay_left_out", left_out, "jobs"
    yield "replay_lost", outcome.lost, "jobs"
    yield "replay_negative_balances", outcome.negative_balances, "wallets"
    yield "replay_audit_findings", len(report.findings) + report.more, "findings"
    yield "replay_refused_for_funds", outcome.refused_for_funds, "submissions"
    yield "replay_run_again", outcome.run_again, "jobs"
    yield "replay_cuts", outcome.cuts, "connections"
    yield "replay_mean_wait", round(statistics.fmean(outcome.waits), 2), "s"
    yield "replay_p90_wait", round(statistics.quantiles(outcome.waits, n=10)[-1], 2), "s"
    yield "replay_faster", FASTER, "times"
    yield "replay_took", round(seconds, 1), "s"


def philly_day(path: Path) -> tuple[list[Arrival], int]:
    """The busiest day, thinned and sped up, and how many of its jobs are left out as too large."""
    with gzip.open(path, "rt") as file:
        rows = [(row["timestamp"], row) for row in csv.DictReader(file)]
    day = max(Counter(at[:10] for at, _ in rows).items(), key=lambda found: (found[1], found[0]))[0]
    of_day = sorted(((at, row) for at, row in rows if at.startswith(day)), key=lambda found: found[0])[
        ::EVERY
    ]
    begin = datetime.fromisoformat(day)
    arrivals = [
        Arrival(
            at=(datetime.fromisoformat(at) - begin).total_seconds() / FASTER,
            seconds=min(float(row["duration"]), LONGEST_SECONDS) / FASTER,
            gpus=int(row["num_gpus"]),
            renter=row["cluster"],
        )
        for at, row in of_day
    ]
    fitting = [each for each in arrivals if each.gpus <= LARGEST_GANG]
    return fitting, len(arrivals) - len(fitting)


async def replay(
    url: str, key: str, arrivals: Sequence[Arrival], *, nodes: Sequence[int], wallet: str = WALLET,
    cut_seconds: float = CUT_SECONDS, ends_seconds_max: float = ENDS_SECONDS_MAX,
) -> Outcome:  # fmt: skip
    """Run them all on an exchange, by its operator's key; returns when the last has ended, or is given up."""
    outcome = Outcome(jobs=len(arrivals))
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(AsyncClient(url=url, api_key=key))
        agents = await enrolled(operator, url, nodes)
        for agent in agents:
            stack.callback(agent.hang_up)
            await agent.dial()
        async with asyncio.timeout(ends_seconds_max):
            while not all(agent.offered for agent in agents):  # noqa: ASYNC110 - agents have no events
                await asyncio.sleep(LOOK_SECONDS / 10)
        renters = {
            name: await stack.enter_async_context(await _renter(operator, url, name, wallet))
            for name in sorted({each.renter for each in arrivals})
        }
        watching = [
            asyncio.create_task(_cut(agents, outcome, seconds=cut_seconds)),
            asyncio.create_task(_watch_wallets(list(renters.values()), outcome)),
        ]
        try:
            begin = time.monotonic()
            submitting = [_submit(renters[each.renter], each, begin, outcome) for each in arrivals]
            ids = await asyncio.gather(*submitting)
            await _ended(list(renters.values()), ends_seconds_max)
        finally:
            for task in watching:
                task.cancel()
            ended = await asyncio.gather(*watching, return_exceptions=True)
        assert not [each for each in ended if isinstance(each, Exception)], ended
        await _count(list(renters.values()), set(ids), outcome)
    return outcome


async def _renter(operator: AsyncClient, url: str, name: str, wallet: str) -> AsyncClient:
    """A client of a new project with money in its wallet."""
    project = await operator.project_create(name)
    key = await operator.key_create("replay", ["renter"], project=project.id)
    await operator.fund(wallet, project=project.id)
    return AsyncClient(url=url, api_key=key.secret)


async def _submit(client: AsyncClient, job: Arrival, begin: float, outcome: Outcome) -> str:
    """Submit when its time has come; again while the wallet is in use for others. Returns its id."""
    await asyncio.sleep(begin + job.at - time.monotonic())
    spec = {
        "name": "philly",
        "run": f"sleep {job.seconds:.3f}",
        "resources": {"gpu_count": job.gpus},
        "limits": {"max_duration": "30m"},
    }
    while True:
        try:
            return (await client.submit(spec)).id
        except PerakError as error:
            if error.code != "insufficient_funds":
                raise
        outcome.refused_for_funds += 1
        await asyncio.sleep(LOOK_SECONDS)


async def _cut(agents: Sequence[SleepingAgent], outcome: Outcome, *, seconds: float) -> None:
    draw = random.Random(1)
    while True:
        await asyncio.sleep(seconds)
        draw.choice(agents).cut()
        outcome.cuts += 1


async def _watch_wallets(renters: Sequence[AsyncClient], outcome: Outcome) -> None:
    while True:
        wallets: list[api.Wallet] = [await renter.wallet() for renter in renters]
        outcome.negative_balances += sum(float(w.available) < 0 or float(w.held) < 0 for w in wallets)
        await asyncio.sleep(LOOK_SECONDS)


async def _ended(renters: Sequence[AsyncClient], seconds: float) -> None:
    """Wait until no job is active; at most so long."""
    until = time.monotonic() + seconds
    for renter in renters:
        while time.monotonic() < until:
            if not [job async for job in renter.jobs(state=ACTIVE, limit=1)]:
                break
            await asyncio.sleep(LOOK_SECONDS)


async def _count(renters: Sequence[AsyncClient], submitted: set[str], outcome: Outcome) -> None:
    found = [job for renter in renters for job in [each async for each in renter.jobs()]]
    receipts = Counter([r.job for renter in renters for r in [each async for each in renter.receipts()]])
    well = {job.id for job in found if job.state == "succeeded" and receipts[job.id] == 1}
    outcome.lost = len(submitted - well) + (outcome.jobs - len(submitted))
    outcome.run_again = sum(job.attempts > 1 for job in found)
    outcome.waits = [(j.started_at - j.created_at).total_seconds() for j in found if j.started_at is not None]
