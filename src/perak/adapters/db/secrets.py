"""Secrets of projects and jobs, sealed. What opens them is not in this database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as it lies here; `owner` is the project or the job that it was sealed for."""

    owner: str
    name: str
    sealed: bytes


class PgSecrets:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def put(self, *, project: str, name: str, sealed: bytes, limit: int, now: datetime) -> bool:
        """Set or replace; False, and nothing is written, where the project has `limit` others."""
        # The project's row is the lock, so that two at once can't pass the limit together.
        await self._db.execute("select from project where id = $1 for no key update", project)
        others = await self._db.fetchval(
            "select count(*) from secret where project_id = $1 and name <> $2", project, name
        )
        if others >= limit:
            return False
        await self._db.execute(
            """insert into secret (project_id, name, sealed, created_at, changed_at)
            values ($1, $2, $3, $4, $4)
            on conflict (project_id, name) do update set sealed = $3, changed_at = $4""",
            project,
            name,
            sealed,
            now,
        )
        return True

    async def remove(self, *, project: str, name: str) -> bool:
        done = await self._db.fetchval(
            "delete from secret where project_id = $1 and name = $2 returning name", project, name
        )
        return done is not None

    async def missing(self, names: Sequence[str], *, project: str) -> list[str]:
        """Those of the names that the project has no secret of."""
        if not names:
            return []
        rows = await self._db.fetch(
            "select name from secret where project_id = $1 and name = any ($2)", project, list(names)
        )
        return sorted(set(names) - {row["name"] for row in rows})

    async def keep_for_job(self, job: str, *, name: str, sealed: bytes) -> None:
        await self._db.execute(
            "insert into job_secret (job_id, name, sealed) values ($1, $2, $3)", job, name, sealed
        )

    async def forget_of_ended(self, *, limit: int) -> int:
        """Delete what was the own of jobs that have ended, some at once; how many."""
        done: str = await self._db.execute(
            """delete from job_secret where (job_id, name) in (
                select job_id, job_secret.name from job_secret join job on job.id = job_id
                where job.ended_at is not null limit $1)""",
            limit,
        )
        return int(done.rpartition(" ")[2])

    async def of_lease(self, *, project: str, job: str, names: Sequence[str] | None) -> list[SealedSecret]:
        """What a run of the job is given: the project's by name and all of the job's own; None: nothing."""
        if names is None:
            return []
        rows = await self._db.fetch(
            """select project_id as owner, name, sealed from secret where project_id = $1 and name = any ($2)
            union all select job_id, name, sealed from job_secret where job_id = $3""",
            project,
            list(names),
            job,
        )
        return [SealedSecret(row["owner"], row["name"], row["sealed"]) for row in rows]
