"""Which project has which blob; the bytes are elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

# A live job may name a digest anywhere in its file: as an input, or in what is yet to come.
UNREFERRED = """
blob.created_at < $1
and not exists (
    select from job where job.project_id = blob.project_id and job.workdir_digest = blob.digest)
and not exists (
    select from run where run.project_id = blob.project_id and run.outputs is not null
        and run.outputs->>'digest' = blob.digest)
and not exists (
    select from log_archive where log_archive.project_id = blob.project_id
        and log_archive.digest = blob.digest)
and not exists (
    select from job where job.project_id = blob.project_id and job.ended_at is null
        and strpos(job.spec::text || job.file::text, blob.digest) > 0)
"""


class PgBlobs:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def known(self, *, project: str, digest: str) -> bool:
        """Whether the project has the blob; it keeps it until this transaction ends."""
        found = await self._db.fetchval(
            "select true from blob where project_id = $1 and digest = $2 for key share", project, digest
        )
        return bool(found)

    async def note(
        self, *, project: str, digest: str, size_bytes: int, now: datetime, node: str | None = None
    ) -> None:
        """The project has the blob; one that it has already is as new: it may be about to be used."""
        await self._db.execute(
            """insert into blob (project_id, digest, size_bytes, created_at, node_id)
            values ($1, $2, $3, $4, $5)
            on conflict (project_id, digest) do update set created_at = excluded.created_at""",
            project,
            digest,
            size_bytes,
            now,
            node,
        )

    async def used(self, *, project: str, node: str | None) -> tuple[int, int]:
        """Bytes that the project has, and that the node has sent (0 without one)."""
        row = await self._db.fetchrow(
            """select
                (select coalesce(sum(size_bytes), 0)::bigint from blob where project_id = $1) as project,
                (select coalesce(sum(size_bytes), 0)::bigint from blob where node_id = $2) as node""",
            project,
            node,
        )
        return row["project"], row["node"]

    async def lock(self, *, project: str, digest: str) -> None:
        """Be the only one who changes what the project has, and whether the blob's bytes are kept."""
        await self._db.execute("select from project where id = $1 for no key update", project)
        await self.lock_bytes(digest)
        # Whoever is about to refer to it is waited for, and seen by the next statement.
        await self._db.execute(
            "select from blob where project_id = $1 and digest = $2 for update", project, digest
        )

    async def lock_bytes(self, digest: str) -> None:
        """Be the only one who changes whether the blob's bytes are kept."""
        await self._db.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", digest)

    async def unnamed(self, digests: Sequence[str]) -> list[str]:
        """Those of the digests that no project has."""
        rows = await self._db.fetch(
            """select digest from unnest($1::text[]) as asked (digest)
            where not exists (select from blob where blob.digest = asked.digest)""",
            digests,
        )
        return [row["digest"] for row in rows]

    async def wanted(self, digest: str) -> bool:
        """Whether any project has the blob."""
        return bool(await self._db.fetchval("select exists (select from blob where digest = $1)", digest))

    async def unreferred(self, *, before: datetime, limit: int) -> list[tuple[str, str]]:
        """(project, digest) of blobs from before a time that no job refers to."""
        rows = await self._db.fetch(
            f"select project_id, digest from blob where {UNREFERRED} order by created_at limit $2",
            before,
            limit,
        )
        return [(row["project_id"], row["digest"]) for row in rows]

    async def forget(self, *, project: str, digest: str, before: datetime) -> bool:
        """The project has the blob no more; False, and nothing is changed, where a job refers to it."""
        done: str = await self._db.execute(
            f"delete from blob where {UNREFERRED} and project_id = $2 and digest = $3",
            before,
            project,
            digest,
        )
        return done == "DELETE 1"
