"""Which project has which blob; the bytes are elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any


class PgBlobs:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def known(self, *, project: str, digest: str) -> bool:
        return bool(
            await self._db.fetchval(
                "select exists (select from blob where project_id = $1 and digest = $2)", project, digest
            )
        )

    async def note(self, *, project: str, digest: str, size_bytes: int, now: datetime) -> None:
        await self._db.execute(
            """insert into blob (project_id, digest, size_bytes, created_at) values ($1, $2, $3, $4)
            on conflict do nothing""",
            project,
            digest,
            size_bytes,
            now,
        )
