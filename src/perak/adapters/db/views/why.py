"""What is told of a job's place on the market."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from perak.domain.job import JobSpec
from perak.domain.market.considered import Considered
from perak.domain.market.why import Placed

_spec_decoder = msgspec.json.Decoder(JobSpec)
_considered_decoder = msgspec.json.Decoder(tuple[Considered, ...])

WHY = """
select job.state, job.spec::text as spec_text, job.created_at, lease.offer_id, node.name as node_name,
    lease.price, lease.granted_at, forecast.seconds, forecast.source,
    placement.considered::text as considered_text
from job
    left join lateral (
        select * from lease where lease.job_id = job.id order by lease.epoch desc limit 1
    ) lease on true
    left join node on node.id = lease.node_id
    left join forecast on forecast.lease_id = lease.id
    left join placement on placement.lease_id = lease.id
where job.id = $1 and job.project_id = $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlace:
    state: str
    spec: JobSpec
    created_at: datetime
    placed: Placed | None


async def job_place(connection: Any, job: str, *, project: str) -> JobPlace | None:
    """The job with its last lease; None: the project has no such job."""
    row = await connection.fetchrow(WHY, job, project)
    if row is None:
        return None
    placed = None
    if row["offer_id"] is not None:
        considered = row["considered_text"]
        placed = Placed(
            offer=row["offer_id"],
            node_name=row["node_name"],
            price=row["price"],
            forecast_seconds=row["seconds"],
            forecast_source=row["source"],
            at=row["granted_at"],
            beside=None if considered is None else _considered_decoder.decode(considered),
        )
    return JobPlace(
        state=row["state"],
        spec=_spec_decoder.decode(row["spec_text"]),
        created_at=row["created_at"],
        placed=placed,
    )
