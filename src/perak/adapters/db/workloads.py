"""What workloads did before, from receipts, and how well their times were foretold."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from perak.domain.market.considered import Considered
from perak.domain.market.history import RENTERS_MIN, Past, device_key
from perak.domain.market.predict import Prediction
from perak.domain.report import NODE_CAUSES

RUNS_MAX = 500
"""A workload's newest receipts that are looked at: more tell nothing new, and one may have thousands."""

PAST = """
select asked.fingerprint, run.project_id, run.device, run.cpu_milli, run.gpus, run.seconds, run.joules,
    run.good
from unnest($1::text[]) asked (fingerprint), lateral (
    select receipt.project_id, receipt.payload->'device'->>'model' as device,
        (receipt.payload->'device'->>'cpu_milli')::bigint as cpu_milli,
        jsonb_array_length(receipt.payload->'device'->'uuids') as gpus,
        extract(epoch from (receipt.payload->>'ended_at')::timestamptz
            - (receipt.payload->>'started_at')::timestamptz)::float8 as seconds,
        (receipt.payload->'energy'->>'joules')::float8 as joules,
        receipt.payload->>'exit_code' = '0' and receipt.payload->>'cause' = 'exited' as good
    from job join receipt on receipt.job_id = job.id
    where job.fingerprint = asked.fingerprint
        and (receipt.payload->>'exit_code' = '0' and receipt.payload->>'cause' = 'exited'
            or receipt.payload->>'cause' = any ($2))
    order by receipt.id desc limit $3
) run
"""
"""Runs that ended well, and those that a fault of node or device cut short; what a script's own error ended
tells nothing of how long it takes."""

OUTPUTS_RUNS_MAX = 20
"""A workload leaves about as much each time."""
OUTPUTS = """
select percentile_disc(0.5) within group (order by coalesce((lately.outputs->>'size_bytes')::bigint, 0))
from (
    select run.outputs from job join run on run.job_id = job.id
    where job.fingerprint = $1 and job.project_id = $2 and run.exit_code = 0 and run.cause = 'exited'
    order by run.id desc limit $3
) lately
"""

ACCURACY = """
select forecast.source, count(*) as runs,
    percentile_cont(0.5) within group (order by ratio) as median,
    percentile_cont(0.9) within group (order by ratio) as p90,
    percentile_cont(0.9) within group (order by greatest(ratio, 1 / ratio)) as p90_factor,
    avg((actual between forecast.low_seconds and forecast.high_seconds)::int)::float8 as inside
from forecast
    join run on run.lease_id = forecast.lease_id
    join receipt on receipt.run_id = run.id,
    lateral (select greatest(0.001, extract(epoch from (receipt.payload->>'ended_at')::timestamptz
        - (receipt.payload->>'started_at')::timestamptz))::float8 as actual) ended,
    lateral (select forecast.seconds / ended.actual as ratio) compared
where forecast.at >= $1 and receipt.payload->>'exit_code' = '0' and receipt.payload->>'cause' = 'exited'
group by forecast.source order by forecast.source
"""


REMEMBER_SECONDS = 10.0
"""What a few seconds add changes no quantile much, and a busy market asks many times in each of them."""


class PastMemory:
    """What workloads did, as it was read within REMEMBER_SECONDS, by fingerprint and project."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._since = seconds()
        self._known: dict[tuple[str, str], tuple[Past, ...]] = {}

    def fresh(self) -> dict[tuple[str, str], tuple[Past, ...]]:
        """All of it, to read and to add to; empty when the time is over."""
        if self._seconds() - self._since >= REMEMBER_SECONDS:
            self._known, self._since = {}, self._seconds()
        return self._known


class PgWorkloads:
    def __init__(self, connection: Any, *, memory: PastMemory | None = None) -> None:
        self._db = connection
        self._memory = memory or PastMemory()

    async def past(self, fingerprints: Sequence[str], *, project: str) -> dict[str, tuple[Past, ...]]:
        """What each workload did, by fingerprint: the project's own runs apart from everybody's."""
        known, asked = self._memory.fresh(), set(fingerprints)
        if new := [fingerprint for fingerprint in asked if (fingerprint, project) not in known]:
            rows = await self._db.fetch(PAST, new, sorted(NODE_CAUSES), RUNS_MAX)
            found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for row in rows:
                found[row["fingerprint"]].append(row)
            known |= {(each, project): tuple(_pasts(found[each], project)) for each in new}
        return {each: past for each in asked if (past := known[each, project])}

    async def outputs_bytes(self, fingerprint: str, *, project: str) -> int | None:
        """What the project's own runs of the workload left, the median; None: none has ended well yet."""
        found: int | None = await self._db.fetchval(OUTPUTS, fingerprint, project, OUTPUTS_RUNS_MAX)
        return found

    async def keep_considered(self, kept: Mapping[str, Sequence[Considered]], *, now: datetime) -> None:
        """Keep what the market saw beside each lease's offer when it granted it."""
        await self._db.execute(
            """insert into placement (lease_id, at, considered)
            select each.lease, $2, each.considered::jsonb
            from unnest($1::text[], $3::text[]) each (lease, considered)""",
            list(kept),
            now,
            [msgspec.json.encode(tuple(each)).decode() for each in kept.values()],
        )

    async def keep_forecast(self, lease: str, foretold: Prediction, *, now: datetime) -> None:
        await self._db.execute(
            """insert into forecast (lease_id, seconds, low_seconds, high_seconds, source, at)
            values ($1, $2, $3, $4, $5, $6)""",
            lease,
            foretold.seconds,
            foretold.low_seconds,
            foretold.high_seconds,
            foretold.source,
            now,
        )


async def accuracy(connection: Any, *, since: datetime) -> list[dict[str, Any]]:
    """By source: runs, median and P90 of foretold over actual, and the share that ended in the interval."""
    return [dict(row) for row in await connection.fetch(ACCURACY, since)]


def _pasts(runs: Sequence[Mapping[str, Any]], project: str) -> list[Past]:
    """The own and the shared aggregate of each kind of device."""
    by_device: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        key = device_key(model=run["device"], gpu_count=run["gpus"], cpu_milli=run["cpu_milli"])
        by_device[key].append(run)
    found = []
    for device, here in by_device.items():
        mine = [run for run in here if run["project_id"] == project]
        found += [past for past in (_past(device, mine, own=True), _past(device, here, own=False)) if past]
    return found


def _past(device: str, runs: Sequence[Mapping[str, Any]], *, own: bool) -> Past | None:
    good = [run for run in runs if run["good"]]
    renters = len({run["project_id"] for run in good})
    if not good or (not own and renters < RENTERS_MIN):
        return None
    seconds = sorted(run["seconds"] for run in good)
    joules = sorted(run["joules"] for run in good if run["joules"] is not None)
    return Past(
        device=device,
        runs=len(good),
        renters=renters,
        own=own,
        low_seconds=_quantile(seconds, 0.1),
        median_seconds=_quantile(seconds, 0.5),
        high_seconds=_quantile(seconds, 0.9),
        median_joules=_quantile(joules, 0.5) if joules else None,
        failures=len(runs) - len(good),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (at - below))
