"""Quotes that are held: a part of an offer at a firm price, for a minute."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perak.adapters.db.offers import taking
from perak.app.quotes import HeldQuote
from perak.domain.job import Resources

_resources_decoder = msgspec.json.Decoder(Resources)

COLUMNS = """id, project_id, offer_id, node_id, state, price, resources::text as resources_text, devices,
    cpu_milli, memory_bytes, disk_bytes, created_at, expires_at, job_id"""

HOLD = f"""
with part as ({taking(offer="$3", version="$13")}
)
insert into quote (id, project_id, offer_id, node_id, state, price, resources, devices, cpu_milli,
    memory_bytes, disk_bytes, created_at, expires_at)
select $1, $2, $3, $4, 'held', $5, $6, $7, $8, $9, $10, $11, $12 from part
returning id
"""

GIVE_BACK = """
with ended as (
    update quote set state = $2, job_id = $3 where id = any ($1) and state = 'held'
    returning id, offer_id, cpu_milli, memory_bytes, disk_bytes
), freed as (
    update device set quote_id = null from ended
    where device.offer_id = ended.offer_id and device.quote_id = ended.id
)
update offer set used_cpu_milli = used_cpu_milli - part.cpu,
    used_memory_bytes = used_memory_bytes - part.memory, used_disk_bytes = used_disk_bytes - part.disk
from (
    select offer_id, sum(cpu_milli)::bigint as cpu, sum(memory_bytes)::bigint as memory,
        sum(disk_bytes)::bigint as disk
    from ended group by offer_id
) part
where offer.id = part.offer_id
"""


class PgQuotes:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def hold(self, quote: HeldQuote, *, offer_version: int) -> bool:
        """Take the part of the offer. False, and nothing is written, where the offer lacks it now."""
        held = await self._db.fetchval(
            HOLD,
            quote.id,
            quote.project,
            quote.offer,
            quote.node,
            quote.price,
            quote.resources,
            list(quote.devices),
            quote.cpu_milli,
            quote.memory_bytes,
            quote.disk_bytes,
            quote.created_at,
            quote.expires_at,
            offer_version,
        )
        if held is not None and quote.devices:
            await self._db.execute(
                "update device set quote_id = $1 where offer_id = $2 and uuid = any ($3)",
                quote.id,
                quote.offer,
                list(quote.devices),
            )
        return held is not None

    async def lock(self, id: str, *, project: str) -> HeldQuote | None:
        row = await self._db.fetchrow(
            f"select {COLUMNS} from quote where id = $1 and project_id = $2 for update", id, project
        )
        return _held(row) if row else None

    async def count_held(self, project: str) -> int:
        return int(
            await self._db.fetchval(
                "select count(*) from quote where project_id = $1 and state = 'held'", project
            )
        )

    async def give_back(self, ids: list[str], *, state: str, job: str | None = None) -> None:
        """End held quotes; what they held of their offers is free again."""
        await self._db.execute(GIVE_BACK, ids, state, job)

    async def expired(self, *, now: datetime, limit: int) -> list[str]:
        rows = await self._db.fetch(
            """select id from quote where state = 'held' and expires_at <= $1
            order by expires_at limit $2 for update skip locked""",
            now,
            limit,
        )
        return [row["id"] for row in rows]


def _held(row: Any) -> HeldQuote:
    return HeldQuote(
        id=row["id"],
        project=row["project_id"],
        offer=row["offer_id"],
        node=row["node_id"],
        state=row["state"],
        price=row["price"],
        resources=_resources_decoder.decode(row["resources_text"]),
        devices=tuple(row["devices"]),
        cpu_milli=row["cpu_milli"],
        memory_bytes=row["memory_bytes"],
        disk_bytes=row["disk_bytes"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        job=row["job_id"],
    )
