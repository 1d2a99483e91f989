"""The names and times of secrets; there is no other way to read one."""

from __future__ import annotations

from typing import Any

from perak.wire.api import Secret

SECRET = "select name, created_at, changed_at from secret where project_id = $1"  # noqa: S105 - a query


async def list_secrets(connection: Any, *, project: str, after: str | None, limit: int) -> list[Secret]:
    """By name."""
    rows = await connection.fetch(
        f"{SECRET} and ($2::text is null or name > $2) order by name limit $3", project, after, limit
    )
    return [Secret(**row) for row in rows]


async def get_secret(connection: Any, name: str, *, project: str) -> Secret | None:
    row = await connection.fetchrow(f"{SECRET} and name = $2", project, name)
    return Secret(**row) if row else None
