"""Leases and their runs. Whoever changes one locks its job first, so that all lock in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from perak.adapters.db.jobs import COLUMNS, job_record
from perak.adapters.db.offers import taking
from perak.app.records import Engagement, LeaseRecord, NewLease, RunRecord
from perak.domain.errors import Conflict
from perak.domain.lifecycle import JOB, LEASE, RUN
from perak.domain.report import Metered, RunStarted
from perak.domain.units import format_money

LOG_BYTES_MAX = 64 * 2**20
"""The most log that is kept of one run; the agent's own limit is the same."""

ENGAGEMENT = f"""
select {COLUMNS},
    lease.id as lease_id, lease.offer_id, lease.offer_version, lease.node_id, lease.provider_project_id,
    lease.epoch as lease_epoch, lease.state as lease_state, lease.price, lease.devices_milli, lease.devices,
    lease.cpu_milli, lease.memory_bytes, lease.disk_bytes, lease.max_duration_seconds,
    lease.duration_limited_by, lease.stop_cause, lease.granted_at, lease.checklist,
    run.id as run_id, run.attempt, run.state as run_state, run.tier, run.enforced, run.unenforced,
    run.started_at as run_started_at, run.log_bytes, run.evidence::text as evidence_text, run.evidence_jws
from run join lease on lease.id = run.lease_id join job on job.id = run.job_id
"""
LOCKED = "order by job.id for no key update of job, lease, run"

GRANT = f"""
with part as ({taking(offer="$4", version="$5")}
), new_lease as (
    insert into lease (id, job_id, project_id, offer_id, offer_version, node_id, provider_project_id, epoch,
        state, price, devices_milli, devices, cpu_milli, memory_bytes, disk_bytes, max_duration_seconds,
        duration_limited_by, granted_at, checklist, reclaim_notice_seconds)
    select $1, $2, $3, $4, $5, $6, $11, $12, $13, $14, $15, $7, $8, $9, $10, $16, $17, $18, $25,
        part.reclaim_notice_seconds
    from part
    returning id
), new_run as (
    insert into run (id, lease_id, job_id, project_id, node_id, epoch, attempt, state, created_at)
    select $19, $1, $2, $3, $6, $12, $20, $21, $18 from new_lease
    returning id
), taken as (
    update job set state = $22, epoch = $12, attempts = $20, hold_mode = $23
    where id = $2 and exists (select from new_run) returning id
)
insert into job_event (job_id, at, kind, detail)
select $2, $18, 'state', $22 || ' on ' || node.name || ' at ' || $24 from taken, node where node.id = $6
returning seq
"""

REFUSE = """
with ended_lease as (
    update lease set state = $2, ended_at = $3 where id = $1
), freed as (
    update device set lease_id = null where offer_id = $4 and lease_id = $1
)
update run set state = $5, ended_at = $3, cause = $6, detail = $7, cost = 0 where lease_id = $1
"""


class PgLeases:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def grant(self, new: NewLease, *, hold_mode: str, now: datetime) -> bool:
        lease = new.lease
        event = await self._db.fetchval(
            GRANT,
            lease.id,
            lease.job,
            lease.project,
            lease.offer,
            lease.offer_version,
            lease.node,
            list(lease.devices),
            lease.cpu_milli,
            lease.memory_bytes,
            lease.disk_bytes,
            lease.provider,
            lease.epoch,
            LEASE.initial,
            lease.price,
            lease.devices_milli,
            lease.max_duration_seconds,
            lease.duration_limited_by,
            now,
            new.run,
            new.attempt,
            RUN.initial,
            JOB.step("queued", "leased"),
            hold_mode,
            f"{format_money(lease.price)} per device-hour",
            lease.checklist,
        )
        if event is not None and lease.devices:
            await self._db.execute(
                "update device set lease_id = $1 where offer_id = $2 and uuid = any ($3)",
                lease.id,
                lease.offer,
                list(lease.devices),
            )
        return event is not None

    async def of_run(self, run: str) -> Engagement | None:
        return (await self.of_runs([run])).get(run)

    async def of_runs(self, runs: Sequence[str]) -> dict[str, Engagement]:
        rows = await self._db.fetch(f"{ENGAGEMENT} where run.id = any ($1) {LOCKED}", list(runs))
        return {row["run_id"]: engagement(row) for row in rows}

    async def live_of_job(self, job: str) -> Engagement | None:
        live = "where job.id = $1 and lease.state in ('active', 'suspected')"
        row = await self._db.fetchrow(f"{ENGAGEMENT} {live} {LOCKED}", job)
        return engagement(row) if row else None

    async def ask_stop(self, lease: str, *, cause: str, now: datetime) -> None:
        await self._db.execute(
            """update lease set stop_cause = coalesce(stop_cause, $2),
                stop_asked_at = coalesce(stop_asked_at, $3) where id = $1""",
            lease,
            cause,
            now,
        )

    async def allow(self, lease: str, *, joules_max: float | None) -> None:
        await self._db.execute("update lease set joules_max = $2 where id = $1", lease, joules_max)

    async def started(self, run: str, started: RunStarted) -> None:
        await self._db.execute(
            """update run set state = 'running', started_at = $2, tier = $3, enforced = $4, unenforced = $5,
                detail = null where id = $1""",
            run,
            from_ms(started.started_at),
            started.tier,
            list(started.enforced),
            started.unenforced,
        )

    async def preparing(self, run: str, *, detail: str) -> None:
        await self._db.execute("update run set state = 'preparing', detail = $2 where id = $1", run, detail)

    async def metered(self, run: str, evidence: Metered, *, jws: str) -> None:
        await self._db.execute(
            "update run set evidence_until = $2, evidence = $3, evidence_jws = $4 where id = $1",
            run,
            from_ms(evidence.until),
            evidence,
            jws,
        )

    async def refuse(self, engagement: Engagement, *, cause: str, detail: str, now: datetime) -> None:
        await self._db.execute(
            REFUSE,
            engagement.lease.id,
            LEASE.step(engagement.lease.state, "ended"),
            now,
            engagement.lease.offer,
            RUN.step(engagement.run.state, "refused"),
            cause,
            detail,
        )

    async def append_log(self, run: str, *, offset: int, data: bytes) -> int:
        length: int = await self._db.fetchval("select log_bytes from run where id = $1", run)
        if offset > length:
            raise Conflict(f"a log chunk of {run} starts at {offset}, after its end at {length}")
        new = data[length - offset : length - offset + max(0, LOG_BYTES_MAX - length)]
        if new:
            await self._db.execute(
                """with chunk as (insert into log_chunk (run_id, start, data) values ($1, $2, $3))
                update run set log_bytes = $4 where id = $1""",
                run,
                length,
                new,
                length + len(new),
            )
        return length + len(new)

    async def suspect(self, *, node: str, now: datetime) -> list[str]:
        rows = await self._db.fetch(
            """update lease set state = $3, suspected_at = $2 where node_id = $1 and state = 'active'
            returning job_id""",
            node,
            now,
            LEASE.step("active", "silent"),
        )
        return [row["job_id"] for row in rows]

    async def unreported(
        self, *, start_within_seconds: float, report_within_seconds: float, now: datetime, limit: int
    ) -> list[tuple[str, str]]:
        # The exchange's clock bounds the node's: a run began no earlier than its lease.
        rows = await self._db.fetch(
            """select run.id, run.node_id from lease join run on run.lease_id = lease.id
            where lease.state = 'active' and $1 > make_interval(secs => lease.unheard_seconds) + least(
                lease.stop_asked_at + make_interval(secs => $3),
                case when run.started_at is null then lease.granted_at + make_interval(secs => $2)
                else greatest(run.started_at, lease.granted_at)
                    + make_interval(secs => lease.max_duration_seconds + $3) end)
            order by lease.granted_at limit $4""",
            now,
            start_within_seconds,
            report_within_seconds,
            limit,
        )
        return [(row["id"], row["node_id"]) for row in rows]

    async def overdue(self, *, now: datetime, limit: int) -> list[str]:
        rows = await self._db.fetch(
            """select run.id from lease join run on run.lease_id = lease.id join job on job.id = lease.job_id
            where lease.state = 'suspected' and lease.suspected_at
                + make_interval(secs => (job.spec->>'disconnect_grace_seconds')::int) < $1
            order by lease.suspected_at limit $2""",
            now,
            limit,
        )
        return [row["id"] for row in rows]


def from_ms(ms: int) -> datetime:
    """An aware UTC datetime of Unix milliseconds; what no calendar holds is cut to its ends."""
    return datetime.fromtimestamp(min(max(ms, 0), MS_MAX) / 1000, tz=UTC)


MS_MAX = 253_402_300_799_000
"""The end of the year 9999."""


def engagement(row: Mapping[str, Any]) -> Engagement:
    evidence = row["evidence_text"]
    return Engagement(
        job=job_record(row),
        lease=LeaseRecord(
            id=row["lease_id"],
            job=row["id"],
            project=row["project_id"],
            offer=row["offer_id"],
            offer_version=row["offer_version"],
            node=row["node_id"],
            provider=row["provider_project_id"],
            epoch=row["lease_epoch"],
            state=row["lease_state"],
            price=row["price"],
            devices_milli=row["devices_milli"],
            devices=tuple(row["devices"]),
            cpu_milli=row["cpu_milli"],
            memory_bytes=row["memory_bytes"],
            disk_bytes=row["disk_bytes"],
            max_duration_seconds=row["max_duration_seconds"],
            duration_limited_by=row["duration_limited_by"],
            stop_cause=row["stop_cause"],
            granted_at=row["granted_at"],
            checklist=row["checklist"],
        ),
        run=RunRecord(
            id=row["run_id"],
            lease=row["lease_id"],
            attempt=row["attempt"],
            state=row["run_state"],
            tier=row["tier"],
            enforced=tuple(row["enforced"]),
            unenforced=row["unenforced"],
            started_at=row["run_started_at"],
            log_bytes=row["log_bytes"],
            evidence=msgspec.json.decode(evidence, type=Metered) if evidence else None,
            evidence_jws=row["evidence_jws"],
        ),
    )
