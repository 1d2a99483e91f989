"""What nodes should run now: in full, and in short, to see who has to be told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from perak.adapters.db.views.market import LiveLease, live_leases

MARKS = """
select node_id, id, stop_cause, joules_max from lease
where node_id = any ($1) and state in ('active', 'suspected') order by id
"""

Mark = tuple[tuple[str, str | None, float | None], ...]
"""A node's live leases in short: the id of each, why it is to stop, and what its run may draw alone. Nothing
else of a lease changes."""


def mark(leases: Sequence[LiveLease]) -> Mark:
    return tuple((lease.lease, lease.stop_cause, lease.joules_max) for lease in leases)


async def leases_of(connection: Any, nodes: Sequence[str]) -> dict[str, list[LiveLease]]:
    """The live leases of those of the nodes that have any."""
    found: dict[str, list[LiveLease]] = defaultdict(list)
    for lease in await live_leases(connection, nodes):
        found[lease.node].append(lease)
    return found


async def marks(connection: Any, nodes: Sequence[str]) -> dict[str, Mark]:
    """The live leases in short of those of the nodes that have any: one statement for a whole fleet."""
    found: dict[str, list[tuple[str, str | None, float | None]]] = defaultdict(list)
    for row in await connection.fetch(MARKS, list(nodes)):
        found[row["node_id"]].append((row["id"], row["stop_cause"], row["joules_max"]))
    return {node: tuple(leases) for node, leases in found.items()}


async def revoked(connection: Any, nodes: Sequence[str]) -> set[str]:
    """Those of the nodes that were revoked."""
    rows = await connection.fetch(
        "select id from node where id = any ($1) and state = 'revoked'", list(nodes)
    )
    return {row["id"] for row in rows}
