"""The nodes' sessions: who opens one, which replica has it, when each was heard of; for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from perak.adapters.db.nodes import COLUMNS, node_record
from perak.app.records import Connected, NodeRecord, SessionHold
from perak.domain.lifecycle import LEASE

REPLICA_LOCK = 0x7065_0020
"""First key of the advisory lock that a replica holds while it is connected; the second is its number."""
FORGOTTEN_AFTER = timedelta(days=1)
"""Rows of replicas that ended long ago go when another starts."""

LOCK = f"""
select {COLUMNS}, session_replica, last_seen from node where id = any ($1) order by id for no key update
"""

CONNECTED = """
update node set state = new.state, agent_id = new.agent, agent_version = new.version, boot_id = new.boot,
    last_seen = $6, session = new.session, session_replica = $7
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $8::bigint[])
    as new (id, state, agent, version, boot, session)
where node.id = new.id
"""

SEEN = """
update node set last_seen = greatest(node.last_seen, seen.at)
from unnest($1::text[], $2::bigint[], $3::timestamptz[]) as seen (id, session, at)
where node.id = seen.id and node.session = seen.session
returning node.id
"""

RELEASED = """
update node set session = null, session_replica = null
from unnest($1::text[], $2::bigint[]) as old (id, session)
where node.id = old.id and node.session = old.session
"""

LIVE = """
select number from replica where alive_at > $1 and number in (
    select objid::bigint from pg_locks
    where locktype = 'advisory' and classid = $2::bigint::oid and objsubid = 2 and granted
        and database = (select oid from pg_database where datname = current_database())
)
"""


class PgSessions:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def lock(self, nodes: Sequence[str]) -> list[tuple[NodeRecord, SessionHold]]:
        rows = await self._db.fetch(LOCK, list(nodes))
        return [(node_record(row), SessionHold(row["session_replica"], row["last_seen"])) for row in rows]

    async def live_replicas(self, *, since: datetime) -> set[int]:
        return {row["number"] for row in await self._db.fetch(LIVE, since, REPLICA_LOCK)}

    async def connected(self, nodes: Sequence[Connected], *, replica: int, now: datetime) -> None:
        await self._db.execute(
            CONNECTED,
            [new.node for new in nodes],
            [new.state for new in nodes],
            [new.agent for new in nodes],
            [new.agent_version for new in nodes],
            [new.boot for new in nodes],
            now,
            replica,
            [new.session for new in nodes],
        )

    async def restore(self, nodes: Sequence[str], *, now: datetime) -> list[tuple[str, str]]:
        rows = await self._db.fetch(
            """update lease set state = $2, suspected_at = null, unheard_seconds = unheard_seconds
                + greatest(0, extract(epoch from $3 - suspected_at))
            where node_id = any ($1) and state = 'suspected' returning node_id, job_id""",
            list(nodes),
            LEASE.step("suspected", "returned"),
            now,
        )
        return [(row["node_id"], row["job_id"]) for row in rows]

    async def seen(self, last_seen: Sequence[tuple[str, int, datetime]]) -> set[str]:
        rows = await self._db.fetch(
            SEEN,
            [node for node, _, _ in last_seen],
            [session for _, session, _ in last_seen],
            [at for _, _, at in last_seen],
        )
        return {row["id"] for row in rows}

    async def released(self, sessions: Sequence[tuple[str, int]]) -> None:
        await self._db.execute(RELEASED, [node for node, _ in sessions], [number for _, number in sessions])

    async def replica_starts(self, *, now: datetime) -> int:
        await self._db.execute("delete from replica where alive_at < $1", now - FORGOTTEN_AFTER)
        number: int = await self._db.fetchval(
            "insert into replica (started_at, alive_at) values ($1, $1) returning number", now
        )
        return number

    async def replica_alive(self, replica: int, *, now: datetime) -> None:
        await self._db.execute("update replica set alive_at = $2 where number = $1", replica, now)


async def sign_keys(connection: Any, nodes: Sequence[str]) -> dict[str, bytes]:
    """The public keys of those of the nodes that are enrolled and not revoked."""
    rows = await connection.fetch(
        "select id, sign_key from node where id = any ($1) and state <> 'revoked'", list(nodes)
    )
    return {row["id"]: row["sign_key"] for row in rows}
