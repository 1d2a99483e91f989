"""Projects and their keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from perak.app.records import Caller
from perak.domain.errors import Conflict


class PgKeys:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def find(self, *, secret_hash: bytes) -> Caller | None:
        row = await self._db.fetchrow(
            """select api_key.id, api_key.name, api_key.roles, api_key.scope, api_key.expires_at,
                api_key.last_used_at, project.id as project_id, project.name as project_name
            from api_key join project on project.id = api_key.project_id
            where secret_hash = $1 and revoked_at is null""",
            secret_hash,
        )
        if row is None:
            return None
        return Caller(
            key=row["id"],
            key_name=row["name"],
            project=row["project_id"],
            project_name=row["project_name"],
            roles=frozenset(row["roles"]),
            scope=row["scope"],
            expires_at=row["expires_at"],
            used_at=row["last_used_at"],
        )

    async def used(self, id: str, *, now: datetime) -> None:
        await self._db.execute("update api_key set last_used_at = $2 where id = $1", id, now)

    async def insert(
        self,
        *,
        id: str,
        project: str,
        name: str,
        secret_hash: bytes,
        roles: Sequence[str],
        now: datetime,
        scope: str = "full",
        expires_at: datetime | None = None,
    ) -> None:
        await self._db.execute(
            """insert into api_key (id, project_id, name, secret_hash, roles, created_at, scope, expires_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8)""",
            id,
            project,
            name,
            secret_hash,
            list(roles),
            now,
            scope,
            expires_at,
        )

    async def revoke(self, id: str, *, project: str | None, now: datetime) -> bool:
        revoked = await self._db.fetchval(
            """update api_key set revoked_at = coalesce(revoked_at, $3)
            where id = $1 and ($2::text is null or project_id = $2) returning id""",
            id,
            project,
            now,
        )
        return revoked is not None

    async def insert_project(self, *, id: str, name: str, now: datetime) -> None:
        try:
            await self._db.execute(
                "insert into project (id, name, created_at) values ($1, $2, $3)", id, name, now
            )
        except asyncpg.UniqueViolationError:
            raise Conflict(f"a project named {name!r} exists already") from None
        await self._db.execute(
            "insert into account (kind, project_id) values ('wallet', $1), ('earnings', $1)", id
        )

    async def project_exists(self, id: str) -> bool:
        return bool(await self._db.fetchval("select exists (select from project where id = $1)", id))
