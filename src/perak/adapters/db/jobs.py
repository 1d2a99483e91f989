"""Jobs and the steps of their life."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from perak.adapters.db.ledger import UNRESOLVED
from perak.app.records import Caller, JobRecord
from perak.domain.job import JobSpec
from perak.domain.lifecycle import JOB
from perak.domain.market.history import fingerprint
from perak.domain.market.match import PendingJob

_spec_decoder = msgspec.json.Decoder(JobSpec)

COLUMNS = """job.id, job.project_id, job.name, job.state, job.spec::text as spec_text, job.epoch,
    job.attempts, job.hold_mode, job.created_at, job.started_at as job_started_at, job.brought_bytes"""

INSERT = """
with job as (
    insert into job (id, project_id, key_id, name, state, spec, file, workdir_digest, hold_mode, created_at,
        fingerprint, brought_bytes)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, (
        select coalesce(sum(blob.size_bytes), 0)::bigint from blob
        where blob.project_id = $2 and blob.digest = any ($12)
    )) returning id
)
insert into job_event (job_id, at, kind, detail) values ($1, $10, 'state', 'queued')
"""

STEP = """
with step as (
    update job set state = $2, reason = $4, exit_code = $5,
        ended_at = case when $6 then $3::timestamptz end,
        avoid = case when $7::text is null then avoid else array_append(avoid, $7) end
    where id = $1 returning id
)
insert into job_event (job_id, at, kind, detail)
select id, $3, 'state', $2 || coalesce(': ' || $4, '') from step
"""

STARTED = """
with step as (
    update job set state = $2, started_at = coalesce(started_at, $3) where id = $1 returning id
)
insert into job_event (job_id, at, kind, detail) select id, $3, 'state', $2 from step
"""

PENDING = f"""
select job.id, job.project_id, job.spec::text as spec_text, job.epoch, job.attempts, job.avoid,
    job.created_at, job.brought_bytes, wallet.posted - wallet.pending as available,
    coalesce((
        select sum(hold.amount)::bigint from transfer hold
        where hold.job_id = job.id and hold.phase = 'pending' and {UNRESOLVED}
    ), 0) as held,
    case when job.attempts > 0 then (
        select coalesce(sum(receipt.carbon_grams), 0) from receipt where receipt.job_id = job.id
    ) else 0 end as emitted_grams
from job join account wallet on wallet.kind = 'wallet' and wallet.project_id = job.project_id
where job.state = 'queued' and {{which}}
order by job.id limit $2
for no key update of job skip locked
"""

IN_THE_QUEUE = "($1::text is null or job.id > $1) and job.spec->>'reserve' is null"
"""Jobs with a reserved window are none of the market's: they begin with it."""
DEFERRABLE = f"{IN_THE_QUEUE} and job.spec->>'start' is not null"
ONE = "job.id = $1"


class PgJobs:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def insert(
        self,
        *,
        id: str,
        caller: Caller,
        spec: JobSpec,
        tree: dict[str, object],
        hold_mode: str,
        now: datetime,
    ) -> None:
        await self._db.execute(
            INSERT,
            id,
            caller.project,
            caller.key,
            spec.name,
            JOB.initial,
            spec,
            tree,
            spec.workdir_digest,
            hold_mode,
            now,
            fingerprint(spec),
            [each for each in (spec.workdir_digest, *_earlier_outputs(spec)) if each],
        )

    async def lock(self, id: str, *, project: str) -> JobRecord | None:
        row = await self._db.fetchrow(
            f"select {COLUMNS} from job where id = $1 and project_id = $2 for no key update", id, project
        )
        return job_record(row) if row else None

    async def step(
        self,
        id: str,
        *,
        state: str,
        now: datetime,
        reason: str | None = None,
        exit_code: int | None = None,
        ended: bool = False,
        avoid: str | None = None,
    ) -> None:
        await self._db.execute(STEP, id, state, now, reason, exit_code, ended, avoid)

    async def started(self, id: str, *, state: str, now: datetime) -> None:
        await self._db.execute(STARTED, id, state, now)

    async def event(self, id: str, *, kind: str, detail: str, now: datetime) -> None:
        await self._db.execute(
            "insert into job_event (job_id, at, kind, detail) values ($1, $2, $3, $4)", id, now, kind, detail
        )

    async def encrypted(self, id: str, *, project: str) -> bool:
        """Whether the job's outputs are for its renter's key alone."""
        return bool(
            await self._db.fetchval(
                "select spec->>'encrypt_to' is not null from job where id = $1 and project_id = $2",
                id,
                project,
            )
        )

    async def outputs(self, id: str, *, project: str) -> str | None:
        digest: str | None = await self._db.fetchval(
            """select run.outputs->>'digest' from run join job on job.id = run.job_id
            where job.id = $1 and job.project_id = $2 and run.outputs->>'digest' is not null
            order by run.attempt desc limit 1""",
            id,
            project,
        )
        return digest

    async def any_pending(self) -> bool:
        query = "select exists (select from job where state = 'queued' and spec->>'reserve' is null)"
        return bool(await self._db.fetchval(query))

    async def pending(self, *, after: str | None, limit: int) -> list[PendingJob]:
        rows = await self._db.fetch(PENDING.format(which=IN_THE_QUEUE), after, limit)
        return [_pending(row) for row in rows]

    async def pending_deferrable(self, *, limit: int) -> list[PendingJob]:
        rows = await self._db.fetch(PENDING.format(which=DEFERRABLE), None, limit)
        return [_pending(row) for row in rows]


def _earlier_outputs(spec: JobSpec) -> list[str | None]:
    """The digests of inputs that the exchange has."""
    return [each.digest for each in spec.inputs if each.url.startswith("job:")]


async def pending_job(connection: Any, job: str) -> PendingJob | None:
    """The job, locked, where it is queued and no other transaction holds it, whatever it waits for."""
    row = await connection.fetchrow(PENDING.format(which=ONE), job, 1)
    return _pending(row) if row else None


def _pending(row: Mapping[str, Any]) -> PendingJob:
    return PendingJob(
        id=row["id"],
        project=row["project_id"],
        spec=_spec_decoder.decode(row["spec_text"]),
        epoch=row["epoch"],
        attempts=row["attempts"],
        avoid=tuple(row["avoid"]),
        held=row["held"],
        available=row["available"],
        submitted_at=row["created_at"],
        brought_bytes=row["brought_bytes"],
        emitted_grams=row["emitted_grams"],
    )


def job_record(row: Mapping[str, Any]) -> JobRecord:
    """A JobRecord of a row that has COLUMNS."""
    return JobRecord(
        id=row["id"],
        project=row["project_id"],
        name=row["name"],
        state=row["state"],
        spec=_spec_decoder.decode(row["spec_text"]),
        epoch=row["epoch"],
        attempts=row["attempts"],
        hold_mode=row["hold_mode"],
        created_at=row["created_at"],
        started_at=row["job_started_at"],
        brought_bytes=row["brought_bytes"],
    )
