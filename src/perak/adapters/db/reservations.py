"""Reserved windows, and what else of offers is somebody's until when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from perak.adapters.db.jobs import pending_job
from perak.adapters.db.windows import taken
from perak.app.reservations import Reservation, Stop
from perak.domain.errors import Conflict
from perak.domain.lifecycle import RESERVATION_LIVE
from perak.domain.market.match import PendingJob
from perak.domain.market.windows import PREPARE_SECONDS
from perak.domain.offer import Claim

COLUMNS = """job_id, project_id, offer_id, node_id, provider_project_id, state, price, devices_milli, devices,
    cpu_milli, memory_bytes, disk_bytes, start_at, end_at, created_at, missed_since"""

INSERT = """
insert into reservation (job_id, project_id, offer_id, node_id, provider_project_id, state, price,
    devices_milli, devices, cpu_milli, memory_bytes, disk_bytes, start_at, end_at, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""

DUE = """
select job_id from reservation join job on job.id = reservation.job_id
where reservation.state in ('booked', 'begun') and job.state = 'queued' and start_at <= $1
    and (tried_at is null or tried_at <= $2)
order by start_at, job_id limit $3
"""

ENDING = """
select lease.id, lease.job_id from reservation join lease on lease.job_id = reservation.job_id
where reservation.state = 'begun' and reservation.end_at <= $1
    and lease.state in ('active', 'suspected') and lease.stop_cause is null
order by lease.job_id limit $2
"""

OVERSTAYING = f"""
select distinct lease.id, lease.job_id from reservation coming
    join lease on lease.offer_id = coming.offer_id and lease.job_id <> coming.job_id
where coming.state in ('booked', 'begun') and coming.start_at <= $2 and coming.end_at > $1
    and lease.state in ('active', 'suspected') and lease.stop_cause is null
    and (lease.devices && coming.devices or coming.start_at >=
        lease.granted_at + make_interval(secs => lease.max_duration_seconds + {PREPARE_SECONDS}))
    and not exists (
        select from reservation own where own.job_id = lease.job_id and own.state in ('booked', 'begun')
    )
order by lease.job_id limit $3
"""


class PgReservations:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def insert(self, reservation: Reservation) -> None:
        try:
            async with self._db.transaction():
                await self._db.execute(
                    INSERT,
                    reservation.job,
                    reservation.project,
                    reservation.offer,
                    reservation.node,
                    reservation.provider,
                    reservation.state,
                    reservation.price,
                    reservation.devices_milli,
                    list(reservation.devices),
                    reservation.cpu_milli,
                    reservation.memory_bytes,
                    reservation.disk_bytes,
                    reservation.start_at,
                    reservation.end_at,
                    reservation.created_at,
                )
        except asyncpg.ExclusionViolationError:
            raise Conflict(
                "the devices were reserved by another just now; ask again", code="no_window"
            ) from None

    async def get(self, job: str) -> Reservation | None:
        row = await self._db.fetchrow(
            f"select {COLUMNS} from reservation where job_id = $1 and state = any ($2) for update",
            job,
            list(RESERVATION_LIVE),
        )
        return _reservation(row) if row else None

    async def pending(self, job: str) -> PendingJob | None:
        return await pending_job(self._db, job)

    async def count_live(self, project: str) -> int:
        return int(
            await self._db.fetchval(
                "select count(*) from reservation where project_id = $1 and state in ('booked', 'begun')",
                project,
            )
        )

    async def taken(self, *, now: datetime, except_job: str | None = None) -> Mapping[str, tuple[Claim, ...]]:
        return await taken(self._db, now=now, except_job=except_job)

    async def put(self, reservation: Reservation, *, note: str | None) -> None:
        await self._db.execute(
            """update reservation set state = $2, offer_id = $3, node_id = $4, provider_project_id = $5,
                price = $6, devices = $7, note = coalesce($8, note) where job_id = $1""",
            reservation.job,
            reservation.state,
            reservation.offer,
            reservation.node,
            reservation.provider,
            reservation.price,
            list(reservation.devices),
            note,
        )

    async def missed(self, job: str, *, now: datetime) -> None:
        await self._db.execute(
            """update reservation set tried_at = $2, missed_since = coalesce(missed_since, $2)
            where job_id = $1""",
            job,
            now,
        )

    async def due(self, *, now: datetime, tried_before: datetime, limit: int) -> list[str]:
        return [row["job_id"] for row in await self._db.fetch(DUE, now, tried_before, limit)]

    async def ending(self, *, end_before: datetime, limit: int) -> list[Stop]:
        detail = "stopping: its reserved window ends"
        return [
            Stop(lease=row["id"], job=row["job_id"], cause="max_duration", detail=detail)
            for row in await self._db.fetch(ENDING, end_before, limit)
        ]

    async def overstaying(self, *, now: datetime, start_before: datetime, limit: int) -> list[Stop]:
        detail = "stopping: it took longer than its max_duration, and another's reserved window begins"
        return [
            Stop(lease=row["id"], job=row["job_id"], cause="preempted", detail=detail)
            for row in await self._db.fetch(OVERSTAYING, now, start_before, limit)
        ]


def _reservation(row: Any) -> Reservation:
    return Reservation(
        job=row["job_id"],
        project=row["project_id"],
        offer=row["offer_id"],
        node=row["node_id"],
        provider=row["provider_project_id"],
        state=row["state"],
        price=row["price"],
        devices_milli=row["devices_milli"],
        devices=tuple(row["devices"]),
        cpu_milli=row["cpu_milli"],
        memory_bytes=row["memory_bytes"],
        disk_bytes=row["disk_bytes"],
        start_at=row["start_at"],
        end_at=row["end_at"],
        created_at=row["created_at"],
        missed_since=row["missed_since"],
    )
