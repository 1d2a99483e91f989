"""Machines that go back to their owners, and what the renters of their runs were told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perak.app.reclaim import Told

_ENDS = "least(node.reclaim_at, offer.available_until)"
"""When the machine goes back; null: it stays."""
_NOTICE = "make_interval(secs => lease.reclaim_notice_seconds)"
"""As it was promised when the lease was granted."""

# What the owner drains to a time is told at once, and so is a change of what was told; the end of an offer
# when its notice is due.
TELL = f"""
with concerned as (
    select id as node from node where reclaim_at is not null
    union select node_id from offer where available_until is not null
    union select node_id from lease where reclaim_at is not null and state in ('active', 'suspected')
), due as (
    select lease.id, node.name, {_ENDS} as ends
    from concerned join lease on lease.node_id = concerned.node and lease.state in ('active', 'suspected')
        join node on node.id = lease.node_id join offer on offer.id = lease.offer_id
    where ($2::text is null or node.id = $2) and lease.reclaim_at is distinct from {_ENDS}
        and (lease.reclaim_at is not null or {_ENDS} = node.reclaim_at or $1 >= {_ENDS} - {_NOTICE})
    order by lease.job_id limit $3
)
update lease set reclaim_at = due.ends, reclaim_told_at = case
    when due.ends is null then null
    when due.ends >= lease.reclaim_at then lease.reclaim_told_at
    else $1 end
from due where lease.id = due.id and lease.reclaim_at is distinct from due.ends
returning lease.job_id, due.name, due.ends
"""

OVERSTAYING = f"""
select lease.id, lease.job_id, node.name
from lease join node on node.id = lease.node_id
where lease.reclaim_at is not null and lease.state in ('active', 'suspected') and lease.stop_cause is null
    and lease.reclaim_at <= $1 and lease.reclaim_told_at + {_NOTICE} <= $1
order by lease.job_id limit $2
"""


class PgReclaims:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def plan(self, node: str, *, at: datetime | None) -> None:
        await self._db.execute("update node set reclaim_at = $2 where id = $1", node, at)

    async def running(self, node: str) -> list[tuple[str, int]]:
        rows = await self._db.fetch(
            """select job_id, reclaim_notice_seconds from lease
            where node_id = $1 and state in ('active', 'suspected') order by job_id""",
            node,
        )
        return [(row["job_id"], row["reclaim_notice_seconds"]) for row in rows]

    async def tell(self, *, node: str | None, now: datetime, limit: int) -> list[Told]:
        return [
            Told(job=row["job_id"], node_name=row["name"], at=row["ends"])
            for row in await self._db.fetch(TELL, now, node, limit)
        ]

    async def overstaying(self, *, now: datetime, limit: int) -> list[tuple[str, str, str]]:
        rows = await self._db.fetch(OVERSTAYING, now, limit)
        return [(row["id"], row["job_id"], row["name"]) for row in rows]
