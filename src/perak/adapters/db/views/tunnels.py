"""Which run a tunnel would lead to, and whether it may go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelTarget:
    """A job as a tunnel needs it. `run`, `lease` and `node` are None while no node has it."""

    job: str
    job_state: str
    run: str | None
    run_state: str | None
    lease: str | None
    node: str | None
    terminals: bool
    """Whether the node's offer takes tunnels."""


async def tunnel_target(connection: Any, job: str, *, project: str) -> TunnelTarget | None:
    """Where a tunnel to the project's job leads now; None where the project has no such job."""
    row = await connection.fetchrow(
        """select job.id as job, job.state as job_state, run.id as run, run.state as run_state,
            lease.id as lease, lease.node_id as node,
            coalesce(offer.ask -> 'grants' ? 'terminals', false) as terminals
        from job
        left join lease on lease.job_id = job.id and lease.state in ('active', 'suspected')
        left join run on run.lease_id = lease.id
        left join offer on offer.id = lease.offer_id
        where job.id = $1 and job.project_id = $2""",
        job,
        project,
    )
    return TunnelTarget(**row) if row else None


async def tunnel_ended(connection: Any, *, lease: str, key: str) -> str | None:
    """Why a tunnel must end now; None: it goes on."""
    row = await connection.fetchrow(
        """select lease.state in ('active', 'suspected') and run.state = 'running' as runs,
            exists (select from api_key where id = $2 and revoked_at is null) as may
        from lease join run on run.lease_id = lease.id where lease.id = $1""",
        lease,
        key,
    )
    if row is None or not row["runs"]:
        return "the run has ended"
    return None if row["may"] else "the key was revoked"
