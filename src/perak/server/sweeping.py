"""Find and delete bytes in the blob store that no row names: a crash between the two leaves some.

Safe beside uploads: bytes are left alone until they are a day old, and go under the lock on their digest,
under which every upload looks whether they are still there (see keeping). Safe beside another exchange: a
store that two have used is never swept, as each would take the other's blobs for nobody's.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services

FIRST_AFTER_SECONDS = 3_600.0
"""Starts are busy; and another exchange on the same store has said so by then."""
SWEEP_EVERY_SECONDS = 86_400.0
"""Crashes are rare, and on S3 a thousand names cost one request."""
KEPT = timedelta(days=1)
"""From the last byte that was written: between it and the row there are seconds."""

_log = get_logger(__name__)


async def sweep(services: Services) -> None:
    """Once a day: delete what no row names."""
    await services.blobs.mark(services.identity.authority.fingerprint)
    await asyncio.sleep(FIRST_AFTER_SECONDS)
    while True:
        await sweep_round(services, before=clock.now() - KEPT)
        await asyncio.sleep(SWEEP_EVERY_SECONDS)


async def sweep_round(services: Services, *, before: datetime) -> int:
    """Delete bytes from before a time that no row names; how many blobs."""
    if not await services.blobs.mark(services.identity.authority.fingerprint):
        _log.warning("these blobs were used by two exchanges, so none is swept; give each a store of its own")
        return 0
    await services.blobs.clear_partial(before)
    deleted = 0
    async for digests in services.blobs.older(before):
        async with services.db.transaction() as tx:
            unnamed = await tx.blobs.unnamed(digests)
        for digest in unnamed:
            deleted += await _delete(services, digest)
    return deleted


async def _delete(services: Services, digest: str) -> bool:
    """Delete the bytes of a digest, if no row has come to name it meanwhile."""
    async with services.db.transaction() as tx:
        await tx.blobs.lock_bytes(digest)
        if await tx.blobs.wanted(digest):
            return False
        await services.blobs.delete(digest)
    _log.info("bytes that no row names were deleted", digest=digest)
    return True
