"""What blobs are kept: within the quotas of project and node, and until no job refers to them for long.

Quotas are counted in the database. A blob's bytes are deleted under a lock on its digest, under which every
upload looks whether they are still there: none is noted whose bytes are gone. For this alone the store is
asked within a transaction, one small request, which waits for nobody but another user of the same blob.
"""

from __future__ import annotations

import asyncio
import typing
from collections.abc import AsyncIterable
from datetime import timedelta

from perak.domain.errors import TooLarge, Unavailable
from perak.domain.units import format_bytes, format_duration
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services

EVICT_EVERY_SECONDS = 600.0
EVICTED_PER_ROUND = 100
"""Each is a transaction of its own, and a call to the store."""

_log = get_logger(__name__)


class QuotaExceeded(TooLarge):
    """A project, or a node, has as many bytes here as it may; the message says what to do."""

    code = "quota_exceeded"


async def keep(
    services: Services,
    *,
    project: str,
    node: str | None = None,
    digest: str,
    chunks: AsyncIterable[bytes],
    limit_bytes: int,
) -> tuple[int, bool]:
    """Store a blob of the project, sent by `node` or by the project itself; its size, and whether it is new.

    Raises QuotaExceeded, and what `Blobs.put` raises.
    """
    async with services.db.transaction() as tx:
        known = await tx.blobs.known(project=project, digest=digest)
        room = limit_bytes if known else await _room(services, tx.blobs.used, project=project, node=node)
    try:
        size, _ = await services.blobs.put(digest, chunks, limit_bytes=min(limit_bytes, room))
    except TooLarge:
        if room < limit_bytes:
            raise _exceeded(services, node=node) from None
        raise
    async with services.db.transaction() as tx:
        await tx.blobs.lock(project=project, digest=digest)
        known = await tx.blobs.known(project=project, digest=digest)
        if await services.blobs.size(digest) is None:
            raise Unavailable("this blob was deleted while it was sent; send it again", code="blob_deleted")
        if known or size <= await _room(services, tx.blobs.used, project=project, node=node):
            await tx.blobs.note(project=project, digest=digest, size_bytes=size, node=node, now=clock.now())
            return size, not known
        if not await tx.blobs.wanted(digest):
            await services.blobs.delete(digest)
    raise _exceeded(services, node=node)


class _Used(typing.Protocol):
    async def __call__(self, *, project: str, node: str | None) -> tuple[int, int]: ...


async def _room(services: Services, used: _Used, *, project: str, node: str | None) -> int:
    """Bytes that may still come. Raises QuotaExceeded where there are none."""
    of_project, of_node = await used(project=project, node=node)
    room = services.quotas.project_bytes - of_project
    if node is not None:
        room = min(room, services.quotas.node_bytes - of_node)
    if room <= 0:
        raise _exceeded(services, node=node)
    return room


def _exceeded(services: Services, *, node: str | None) -> QuotaExceeded:
    quotas = services.quotas
    kept = format_duration(quotas.kept_seconds)
    whose = f"{format_bytes(quotas.project_bytes)} of files are kept for a project here"
    if node is not None:
        whose += f", and {format_bytes(quotas.node_bytes)} of those that one node sent"
    return QuotaExceeded(
        f"{whose}, and this is more. What no job refers to is deleted {kept} after it came: wait, send less, "
        "or ask the operator for more (--blob-quota, --node-blob-quota)"
    )


async def evict(services: Services) -> None:
    """Now and then: delete what no job has referred to for `kept_seconds`."""
    while True:
        await asyncio.sleep(EVICT_EVERY_SECONDS)
        while await evict_round(services) == EVICTED_PER_ROUND:
            pass


async def evict_round(services: Services) -> int:
    """Delete some blobs that are due; how many."""
    before = clock.now() - timedelta(seconds=services.quotas.kept_seconds)
    async with services.db.transaction() as tx:
        due = await tx.blobs.unreferred(before=before, limit=EVICTED_PER_ROUND)
    for project, digest in due:
        async with services.db.transaction() as tx:
            await tx.blobs.lock(project=project, digest=digest)
            if not await tx.blobs.forget(project=project, digest=digest, before=before):
                continue  # A job came to want it meanwhile.
            if not await tx.blobs.wanted(digest):
                await services.blobs.delete(digest)
        _log.info("a blob that no job refers to was deleted", project=project, digest=digest)
    return len(due)
