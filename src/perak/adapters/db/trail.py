"""The trail: who did what with keys, projects, money, secrets and nodes. It only grows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perak.app.records import Caller
from perak.wire.api import TrailEntry


class PgTrail:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def append(
        self,
        *,
        caller: Caller,
        address: str,
        action: str,
        subject: str,
        subject_project: str | None,
        outcome: str,
        now: datetime,
    ) -> None:
        await self._db.execute(
            """insert into trail (
                at, project_id, key_id, address, action, subject, subject_project_id, outcome
            ) values ($1, $2, $3, $4, $5, $6, $7, $8)""",
            now,
            caller.project,
            caller.key,
            address,
            action,
            subject,
            subject_project,
            outcome,
        )

    async def newest(self, *, project: str | None, before: int | None, limit: int) -> list[TrailEntry]:
        """What the keys of a project did, newest first; `project` None: of all."""
        rows = await self._db.fetch(
            """select trail.seq::text as id, at, trail.project_id as project, key_id as key,
                api_key.name as key_name, address, action, subject,
                subject_project_id as subject_project, outcome
            from trail join api_key on api_key.id = trail.key_id
            where ($1::text is null or trail.project_id = $1) and ($2::bigint is null or seq < $2)
            order by seq desc limit $3""",
            project,
            before,
            limit,
        )
        return [TrailEntry(**row) for row in rows]
