"""Escape checklists that nodes sent, by digest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perak.domain.checklist import Checklist, canonical, digest

KEPT_BY_NODE = 200
"""The last ones of a node; older ones stay where a lease or the offer names them."""

KEEP = """
insert into checklist (digest, node_id, tier, document, jws, posted_at) values ($1, $2, $3, $4, $5, $6)
on conflict (digest, node_id) do nothing
"""

BEYOND = "select digest from checklist where node_id = $1 order by posted_at desc, digest offset $2"

FORGET = """
delete from checklist where node_id = $1 and digest = any ($2)
and not exists (select from lease where lease.node_id = $1 and lease.checklist = checklist.digest)
and not exists (
    select from offer, jsonb_array_elements(offer.ask -> 'tiers') as offered (sandbox)
    where offer.node_id = $1 and sandbox ->> 'checklist' = checklist.digest
)
"""

_decoder = msgspec.json.Decoder(Checklist)


class PgChecklists:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def keep(self, *, node: str, checklist: Checklist, jws: str, now: datetime) -> None:
        text = canonical(checklist).decode()
        await self._db.execute(KEEP, digest(checklist), node, checklist.tier, text, jws, now)
        if beyond := await self._db.fetch(BEYOND, node, KEPT_BY_NODE):
            await self._db.execute(FORGET, node, [row["digest"] for row in beyond])

    async def of_node(self, node: str, *, digest: str) -> Checklist | None:
        text = await self._db.fetchval(
            "select document from checklist where node_id = $1 and digest = $2", node, digest
        )
        return None if text is None else _decoder.decode(text)
