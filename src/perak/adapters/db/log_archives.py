"""Which logs lie in the blob store, and which are due to go there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

DUE = """
select id, project_id, ended_at, log_bytes,
    exists (select from log_archive where run_id = run.id) as archived
from run
where ended_at < $1 and ($2::timestamptz is null or (ended_at, id) > ($2, $3))
order by ended_at, id limit $4
"""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run whose log may be due; `archived`: it is in the blob store already."""

    id: str
    project: str
    ended_at: datetime
    log_bytes: int
    archived: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where the first `log_bytes` of a log are: in the blob `digest`, whose members begin at `starts`."""

    digest: str
    log_bytes: int
    starts: tuple[int, ...]


async def ended_runs(
    connection: Any, *, before: datetime, after: EndedRun | None, limit: int
) -> list[EndedRun]:
    """Runs that ended before a time, in the order of their ends, from the one behind `after` on."""
    at, id = (after.ended_at, after.id) if after is not None else (None, None)
    rows = await connection.fetch(DUE, before, at, id, limit)
    return [
        EndedRun(row["id"], row["project_id"], row["ended_at"], row["log_bytes"], row["archived"])
        for row in rows
    ]


async def archive_of(connection: Any, run: str) -> Archive | None:
    row = await connection.fetchrow(
        "select digest, log_bytes, starts from log_archive where run_id = $1", run
    )
    return Archive(digest=row[0], log_bytes=row[1], starts=tuple(row[2])) if row else None


async def move(connection: Any, run: EndedRun, archive: Archive) -> bool:
    """Name the blob and delete the chunks that it holds, in the caller's transaction.

    False, and nothing is changed, where another replica does it just now or did, or the log has grown since.
    """
    length = await connection.fetchval(
        "select log_bytes from run where id = $1 for no key update skip locked", run.id
    )
    if length != archive.log_bytes:
        return False
    named = await connection.fetchval(
        """insert into log_archive (run_id, project_id, digest, log_bytes, starts)
        values ($1, $2, $3, $4, $5) on conflict do nothing returning true""",
        run.id,
        run.project,
        archive.digest,
        archive.log_bytes,
        list(archive.starts),
    )
    if not named:
        return False
    await connection.execute("delete from log_chunk where run_id = $1", run.id)
    return True
