"""What a restored database still believes."""

from __future__ import annotations

from typing import Any


async def live_runs(connection: Any) -> list[str]:
    """The runs whose lease lives."""
    rows = await connection.fetch(
        """select run.id from run join lease on lease.id = run.lease_id
        where lease.state in ('active', 'suspected') order by run.id"""
    )
    return [row["id"] for row in rows]
