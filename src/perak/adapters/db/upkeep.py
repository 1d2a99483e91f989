"""What the exchange does for itself: figures for metrics, a fresh certificate, old replies thrown away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

START_LOCK = 0x7065_0010
"""Advisory lock of the first start, so that two replicas make one exchange."""


async def lock_start(connection: Any) -> None:
    """Be the only replica that starts, until the end of the transaction."""
    await connection.execute("select pg_advisory_xact_lock($1)", START_LOCK)


async def set_signing_chain(connection: Any, *, chain: str) -> None:
    """Keep the renewed certificate of the key that signs receipts."""
    await connection.execute("update exchange set signing_chain = $1", chain)


SEALED = (
    ("exchange", "ca_key_sealed"),
    ("exchange", "signing_key_sealed"),
    ("webhook", "secret_sealed"),
    ("secret", "sealed"),
    ("job_secret", "sealed"),
    ("idempotency", "body"),
)
"""Where what is sealed lies. Of replies only some are: a Fernet token begins as below."""


async def reseal(connection: Any, again: Callable[[bytes], bytes]) -> None:
    """Seal everything again, row by row, within the transaction of a start."""
    for table, column in SEALED:
        rows = await connection.fetch(
            f"""select ctid, {column} as sealed from {table}
            where substring({column} from 1 for 5) = 'gAAAA'"""
        )
        for row in rows:
            await connection.execute(
                f"update {table} set {column} = $2 where ctid = $1", row["ctid"], again(row["sealed"])
            )


async def forget_replies(connection: Any, *, before: datetime, limit: int) -> int:
    """Delete idempotent replies from before a time, some at once; how many."""
    done: str = await connection.execute(
        """delete from idempotency where (project_id, key) in (
            select project_id, key from idempotency where created_at < $1 limit $2)""",
        before,
        limit,
    )
    return int(done.rpartition(" ")[2])


async def reachable(connection: Any) -> bool:
    return bool(await connection.fetchval("select true"))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs and nodes are in each state, and how many leases are live."""

    jobs: dict[str, int]
    nodes: dict[str, int]
    leases: dict[str, int]


async def count(connection: Any) -> Counts:
    """Live jobs only: ended ones grow for ever, and counters have them already."""
    rows = await connection.fetch(
        """select 'job' as kind, state, count(*) from job where ended_at is null group by state
        union all select 'node', state, count(*) from node group by state
        union all select 'lease', state, count(*) from lease where state in ('active', 'suspected')
            group by state"""
    )
    by_kind: dict[str, dict[str, int]] = {"job": {}, "node": {}, "lease": {}}
    for row in rows:
        by_kind[row["kind"]][row["state"]] = row["count"]
    return Counts(jobs=by_kind["job"], nodes=by_kind["node"], leases=by_kind["lease"])
