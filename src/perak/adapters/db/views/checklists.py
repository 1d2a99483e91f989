"""Escape checklists, by digest."""

from __future__ import annotations

from typing import Any

import msgspec

from perak.domain.checklist import Checklist
from perak.wire.api import ChecklistView, CheckView

_decoder = msgspec.json.Decoder(Checklist)


async def get_checklist(connection: Any, digest: str) -> ChecklistView | None:
    """The document and the report that signs it; of two nodes that sent the same, the first one's."""
    row = await connection.fetchrow(
        """select node_id, document, jws, posted_at from checklist where digest = $1
        order by posted_at, node_id limit 1""",
        digest,
    )
    if row is None:
        return None
    found = _decoder.decode(row["document"])
    return ChecklistView(
        digest=digest,
        node=row["node_id"],
        tier=found.tier,
        runtime=found.runtime,
        kernel=found.kernel,
        agent_version=found.agent_version,
        at=found.at,
        results=[
            CheckView(name=each.name, outcome=each.outcome, detail=each.detail) for each in found.results
        ],
        jws=row["jws"],
    )
