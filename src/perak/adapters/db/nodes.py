"""Nodes, their invites, and the exchange's own sign of life."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from perak.app.records import Heat, NodeRecord
from perak.domain.errors import Conflict
from perak.domain.lifecycle import NODE
from perak.domain.report import Health

COLUMNS = """id, project_id, name, state, mode, sign_key, certificate_chain, certificate_expires_at,
    report_seq, agent_id"""


TAKEN = {
    "node_name": "this project has a node named {name!r} already, and two machines can't share a name. Give "
    "this one another with --name; or, if the other is gone for good, `perak node revoke {name}` first",
    "node_sign_key_key": "a node with this key is enrolled already, perhaps in another project, or revoked; "
    "start the agent with an empty --state-dir, so that it makes a new key",
}
"""What to do where a row of `node` would not be unique, by the constraint that says so."""


class PgNodes:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def lock(self, id: str) -> NodeRecord | None:
        row = await self._db.fetchrow(f"select {COLUMNS} from node where id = $1 for no key update", id)
        return node_record(row) if row else None

    async def get(self, id: str) -> NodeRecord | None:
        row = await self._db.fetchrow(f"select {COLUMNS} from node where id = $1", id)
        return node_record(row) if row else None

    async def seal_key(self, id: str) -> bytes:
        """The public key that the node receives secrets with."""
        key: bytes = await self._db.fetchval("select seal_key from node where id = $1", id)
        return key

    async def insert(
        self,
        *,
        id: str,
        project: str,
        name: str,
        sign_key: bytes,
        seal_key: bytes,
        certificate_chain: str,
        certificate_expires_at: datetime,
        now: datetime,
    ) -> None:
        try:
            await self._db.execute(
                """insert into node (id, project_id, name, sign_key, seal_key, certificate_chain,
                    certificate_expires_at, state, enrolled_at)
                values ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
                id,
                project,
                name,
                sign_key,
                seal_key,
                certificate_chain,
                certificate_expires_at,
                NODE.initial,
                now,
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict(
                TAKEN.get(error.constraint_name or "", TAKEN["node_name"]).format(name=name)
            ) from None

    async def certified(self, id: str, *, chain: str, expires_at: datetime) -> None:
        await self._db.execute(
            "update node set certificate_chain = $2, certificate_expires_at = $3 where id = $1",
            id,
            chain,
            expires_at,
        )

    async def applied(self, seqs: Mapping[str, int], *, now: datetime) -> None:
        await self._db.execute(
            """update node set report_seq = new.seq, last_seen = $3
            from unnest($1::text[], $2::bigint[]) as new (id, seq) where node.id = new.id""",
            list(seqs),
            list(seqs.values()),
            now,
        )

    async def silent(self, *, before: datetime) -> list[NodeRecord]:
        return await self._unseen("online", before)

    async def lost(self, *, before: datetime) -> list[NodeRecord]:
        return await self._unseen("suspected", before)

    async def _unseen(self, state: str, before: datetime) -> list[NodeRecord]:
        rows = await self._db.fetch(
            f"select {COLUMNS} from node where state = $1 and last_seen < $2 order by id for no key update",
            state,
            before,
        )
        return [node_record(row) for row in rows]

    async def notice(self, id: str, *, text: str, now: datetime) -> None:
        """One that says the same as before is written once a minute: its cause may try again and again."""
        await self._db.execute(
            """update node set notice = $2, notice_at = $3::timestamptz where id = $1
            and (notice is distinct from $2 or notice_at < $3::timestamptz - interval '1 minute')""",
            id,
            text,
            now,
        )

    async def heat(self, id: str) -> Heat:
        row = await self._db.fetchrow("select hot, heat_turned_at from node where id = $1", id)
        return Heat(hot=tuple(row["hot"]), turned_at=row["heat_turned_at"])

    async def set_health(self, id: str, *, health: Health, at: datetime, heat: Heat) -> None:
        await self._db.execute(
            "update node set sensors = $2, health_at = $3, hot = $4, heat_turned_at = $5 where id = $1",
            id,
            health.sensors,
            at,
            list(heat.hot),
            heat.turned_at,
        )

    async def set_state(self, id: str, *, state: str) -> None:
        await self._db.execute("update node set state = $2 where id = $1", id, state)

    async def set_mode(self, id: str, *, mode: str) -> None:
        await self._db.execute("update node set mode = $2 where id = $1", id, mode)

    async def take_invite(self, *, secret_hash: bytes, now: datetime) -> str | None:
        project: str | None = await self._db.fetchval(
            """update invite set uses_left = uses_left - 1
            where secret_hash = $1 and uses_left > 0 and expires_at > $2 returning project_id""",
            secret_hash,
            now,
        )
        return project

    async def invited_to(self, *, secret_hash: bytes) -> str | None:
        project: str | None = await self._db.fetchval(
            "select project_id from invite where secret_hash = $1", secret_hash
        )
        return project

    async def insert_invite(
        self, *, id: str, project: str, secret_hash: bytes, uses: int, now: datetime, expires_at: datetime
    ) -> None:
        await self._db.execute(
            """insert into invite (id, project_id, secret_hash, uses_left, created_at, expires_at)
            values ($1, $2, $3, $4, $5, $6)""",
            id,
            project,
            secret_hash,
            uses,
            now,
            expires_at,
        )

    async def exchange_alive(self, *, now: datetime) -> datetime:
        before: datetime = await self._db.fetchval(
            """update exchange set alive_at = greatest($1, exchange.alive_at)
            from (select alive_at from exchange for update) as old returning old.alive_at""",
            now,
        )
        return before

    async def renew_windows(self, *, away_seconds: float, now: datetime) -> None:
        await self._db.execute(
            "update node set last_seen = $1 where state in ('online', 'suspected') and last_seen < $1", now
        )
        await self._db.execute(
            """update lease set suspected_at = case when state = 'suspected' then $1 else suspected_at end,
                unheard_seconds = unheard_seconds + $2 where state in ('active', 'suspected')""",
            now,
            away_seconds,
        )


def node_record(row: Mapping[str, Any]) -> NodeRecord:
    return NodeRecord(
        id=row["id"],
        project=row["project_id"],
        name=row["name"],
        state=row["state"],
        mode=row["mode"],
        sign_key=row["sign_key"],
        certificate_chain=row["certificate_chain"],
        certificate_expires_at=row["certificate_expires_at"],
        report_seq=row["report_seq"],
        agent_id=row["agent_id"],
    )
