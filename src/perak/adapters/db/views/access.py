"""Keys and projects."""

from __future__ import annotations

from typing import Any

from perak.wire.api import Key, Project

KEY = """
select id, name, project_id as project, roles, scope, created_at, expires_at, last_used_at, revoked_at
from api_key
"""


async def list_keys(connection: Any, *, project: str | None, before: str | None, limit: int) -> list[Key]:
    """Keys, newest first, revoked ones included; `project` None: of all projects."""
    rows = await connection.fetch(
        f"""{KEY} where ($1::text is null or project_id = $1) and ($2::text is null or id < $2)
        order by id desc limit $3""",
        project,
        before,
        limit,
    )
    return [Key(**row) for row in rows]


async def get_key(connection: Any, id: str) -> Key | None:
    row = await connection.fetchrow(f"{KEY} where id = $1", id)
    return Key(**row) if row else None


async def list_projects(connection: Any, *, before: str | None, limit: int) -> list[Project]:
    rows = await connection.fetch(
        """select id, name, created_at from project where $1::text is null or id < $1
        order by id desc limit $2""",
        before,
        limit,
    )
    return [Project(**row) for row in rows]


async def project_named(connection: Any, name: str) -> Project | None:
    row = await connection.fetchrow("select id, name, created_at from project where name = $1", name)
    return Project(**row) if row else None
