"""Reserved windows as renters and providers see them."""

from __future__ import annotations

from typing import Any

from perak.domain.market.windows import Window

WINDOW = """
select node.name as node_name, reservation.state, price, devices_milli, start_at, end_at, note
from reservation join node on node.id = reservation.node_id where job_id = $1
"""


async def window_of(connection: Any, job: str) -> Window | None:
    """The window of a job, also when it is over; None: it reserved none. The caller knows whose job it is."""
    row = await connection.fetchrow(WINDOW, job)
    return Window(**row) if row else None
