"""Logs of runs: read from wherever they are, and moved to the blob store some time after the run's end.

In the blob store a log is a gzip file of members of BLOCK_BYTES each, so that a reader who starts anywhere
gets there with one block; `zcat` reads it whole. The blob is stored first, then one transaction names it and
deletes the rows: who dies between the two leaves a log that is still there, and bytes that no row names.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from perak.adapters.db.log_archives import Archive, EndedRun, archive_of, ended_runs, move
from perak.adapters.db.views.jobs import read_log_rows
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services

BLOCK_BYTES = 256 * 1024
"""What one read of an archived log unpacks; smaller blocks compress worse."""
ARCHIVE_AFTER = timedelta(hours=1)
"""Whoever followed the run has read it by then; late reports of a node that was away have come."""
ARCHIVED_BYTES_MIN = 8 * 1024
"""A page of the database: a smaller log takes more as a file, and stays where it is."""
LOOK_SECONDS = 60.0
ANEW_SECONDS = 86_400.0
"""All ended runs are looked at again, for logs that another replica was about to move when it died."""
RUNS_PER_LOOK = 1_000
"""Looked at in one query, most of them too small or done."""
_LEVEL = 6

_log = get_logger(__name__)


async def read_log(services: Services, run: str, *, offset: int, limit_bytes: int) -> bytes:
    """Up to `limit_bytes` of a run's log from `offset`; empty where there is no more yet."""
    async with services.db.connection() as connection:
        found = await read_log_rows(connection, run, offset=offset, limit_bytes=limit_bytes)
        if found:
            return found
        # In this order: a log that moves between the two questions is found by the second.
        archive = await archive_of(connection, run)
    if archive is None or offset >= archive.log_bytes:
        return b""
    return (await _block(services, archive, offset // BLOCK_BYTES))[offset % BLOCK_BYTES :][:limit_bytes]


async def _block(services: Services, archive: Archive, number: int) -> bytes:
    last = number + 1 == len(archive.starts)
    end = None if last else archive.starts[number + 1]
    packed = await services.blobs.read(archive.digest, start=archive.starts[number], end=end)
    return await asyncio.to_thread(gzip.decompress, packed)


async def archive_logs(services: Services) -> None:
    """Now and then: move the logs of runs that ended ARCHIVE_AFTER ago."""
    last, anew_at = None, 0.0
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if time.monotonic() >= anew_at:
            last, anew_at = None, time.monotonic() + ANEW_SECONDS
        seen = RUNS_PER_LOOK
        while seen == RUNS_PER_LOOK:
            last, seen = await archive_round(services, after=last, before=clock.now() - ARCHIVE_AFTER)


async def archive_round(
    services: Services, *, after: EndedRun | None, before: datetime
) -> tuple[EndedRun | None, int]:
    """Move the logs of some runs that ended before a time; the last run seen, and how many were."""
    async with services.db.connection() as connection:
        runs = await ended_runs(connection, before=before, after=after, limit=RUNS_PER_LOOK)
    for run in runs:
        if not run.archived and run.log_bytes >= ARCHIVED_BYTES_MIN:
            await _archive(services, run)
    return (runs[-1] if runs else after), len(runs)


async def _archive(services: Services, run: EndedRun) -> None:
    """Store the blob, then name it in one transaction; two replicas at once store the same bytes."""
    members: list[bytes] = []
    starts, size, sha = [], 0, hashlib.sha256()
    for offset in range(0, run.log_bytes, BLOCK_BYTES):
        block = await _whole_block(services, run, offset)
        member = await asyncio.to_thread(gzip.compress, block, _LEVEL, mtime=0)
        members.append(member)
        starts.append(size)
        size += len(member)
        sha.update(member)
    archive = Archive(digest=f"sha256:{sha.hexdigest()}", log_bytes=run.log_bytes, starts=tuple(starts))
    await services.blobs.put(archive.digest, _each(members), limit_bytes=size)
    async with services.db.transaction() as tx:
        await tx.blobs.lock(project=run.project, digest=archive.digest)
        if await services.blobs.size(archive.digest) is None:
            return  # Deleted meanwhile, as another log of the same bytes was; the next start looks again.
        if await move(tx.connection, run, archive):
            # It counts for the project's quota, which never refuses it: as rows it would take more.
            await tx.blobs.note(project=run.project, digest=archive.digest, size_bytes=size, now=clock.now())
            _log.info("a log was moved to the blobs", run=run.id, log_bytes=run.log_bytes, size_bytes=size)


async def _whole_block(services: Services, run: EndedRun, offset: int) -> bytes:
    """The block at `offset`, whole: a read ends where a chunk's rows do."""
    wanted = min(BLOCK_BYTES, run.log_bytes - offset)
    block = b""
    while len(block) < wanted:
        part = await read_log(services, run.id, offset=offset + len(block), limit_bytes=wanted - len(block))
        assert part, "the log is as long as its run says"
        block += part
    return block


async def _each(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
