"""What of offers is kept for windows, and what else of them is somebody's until when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from perak.domain.market.windows import AHEAD_SECONDS_MAX, PREPARE_SECONDS
from perak.domain.offer import Claim

END_SECONDS = 60
"""From a run's max_duration until its node has said that it ended: seconds, mostly."""

CLAIM = "offer_id, start_at, end_at, devices, cpu_milli, memory_bytes, disk_bytes"

RESERVED = f"""
select {CLAIM} from reservation
where state in ('booked', 'begun') and ($1::text is null or offer_id = $1)
    and exists (select from job where job.id = job_id and job.state = 'queued')
order by start_at
"""
"""A window whose run lives is its lease's."""

TAKEN = f"""
select {CLAIM} from reservation where state in ('booked', 'begun') and job_id is distinct from $3
union all
select lease.offer_id, lease.granted_at, greatest($1::timestamptz + make_interval(secs => {END_SECONDS}),
        case when run.started_at is null
            then lease.granted_at + make_interval(secs => lease.max_duration_seconds + {PREPARE_SECONDS})
            else greatest(lease.granted_at, least(run.started_at, $1))
                + make_interval(secs => lease.max_duration_seconds + {END_SECONDS}) end),
    lease.devices, lease.cpu_milli, lease.memory_bytes, lease.disk_bytes
from lease join run on run.lease_id = lease.id
where lease.state in ('active', 'suspected') and not exists (
    select from reservation own
    where own.job_id = lease.job_id and own.offer_id = lease.offer_id and own.state in ('booked', 'begun')
)
union all
select offer_id, created_at, $2::timestamptz, devices, cpu_milli, memory_bytes, disk_bytes
from quote where state = 'held'
"""

AUDITED_WINDOWS = """
select job_id, offer_id, reservation.state, reservation.price, devices_milli, devices, start_at, end_at,
    job.state as job_state, greatest(
        reservation.price, (select max(lease.price) from lease where lease.job_id = job.id)) as most_price,
    coalesce((select sum(cost)::bigint from run where run.job_id = job.id), 0) as cost,
    coalesce((
        select sum(hold.amount)::bigint from transfer hold where hold.job_id = job.id
            and hold.phase = 'pending' and not exists (
                select from transfer done where done.pending_id = hold.id)
    ), 0) as held
from reservation join job on job.id = reservation.job_id order by job_id
"""
AUDITED_LEASES = """
select job_id, offer_id, devices, granted_at, max_duration_seconds from lease
where state in ('active', 'suspected') and cardinality(devices) > 0
    and exists (select from reservation where reservation.offer_id = lease.offer_id) order by id
"""


async def reserved(connection: Any, *, offer: str | None = None) -> dict[str, tuple[Claim, ...]]:
    """By offer (one, or all): the windows for which parts of it are kept and no run lives."""
    return _by_offer(await connection.fetch(RESERVED, offer))


def _by_offer(rows: Any) -> dict[str, tuple[Claim, ...]]:
    found: defaultdict[str, list[Claim]] = defaultdict(list)
    for row in rows:
        found[row["offer_id"]].append(
            Claim(
                start_at=row["start_at"],
                end_at=row["end_at"],
                devices=tuple(row["devices"]),
                cpu_milli=row["cpu_milli"],
                memory_bytes=row["memory_bytes"],
                disk_bytes=row["disk_bytes"],
            )
        )
    return {offer: tuple(claims) for offer, claims in found.items()}


async def taken(
    connection: Any, *, now: datetime, except_job: str | None = None
) -> Mapping[str, tuple[Claim, ...]]:
    """By offer: windows (but the job's own), live leases and held quotes, by when each ends at the latest.

    Of a held quote it is not known how long its run will last: it stands in the way of every window.
    """
    far = now + timedelta(seconds=3 * AHEAD_SECONDS_MAX)
    return _by_offer(await connection.fetch(TAKEN, now, far, except_job))
