"""Bytes that no row names go; those that one names, or is about to, stay."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from server_world import Running

from perak.adapters.blobs import Blobs
from perak.domain.errors import Unavailable
from perak.server import clock
from perak.server.keeping import keep
from perak.server.sweeping import sweep_round


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def store(blobs: Blobs, data: bytes) -> str:
    """Bytes as a crash leaves them: stored, and named by no row."""
    await blobs.put(digest_of(data), chunks(data), limit_bytes=10**6)
    return digest_of(data)


async def test_orphans_go_when_they_are_old_and_named_bytes_stay(exchange: Running, tmp_path: Path) -> None:
    blobs, later = exchange.services.blobs, clock.now() + timedelta(minutes=1)
    orphan, named = await store(blobs, b"orphan"), digest_of(b"named")
    assert (await exchange.client.put(f"/v1/blobs/{named}", content=b"named")).status_code == 201
    (partial,) = [path.with_name(path.name + "#1") for path in tmp_path.rglob(orphan.removeprefix("sha256:"))]
    partial.write_bytes(b"cut")
    assert await sweep_round(exchange.services, before=clock.now() - timedelta(minutes=1)) == 0, (
        "all are young"
    )
    assert partial.exists()
    assert await sweep_round(exchange.services, before=later) == 1
    assert [await blobs.size(digest) for digest in (orphan, named)] == [None, 5]
    assert not partial.exists()


async def test_an_upload_of_an_orphans_bytes_keeps_them_or_is_told(
    exchange: Running,
) -> None:
    """Whoever comes first to the digest's lock wins, and no row is left without bytes.

    The sweep may also be over before the upload comes: then its bytes are stored anew.
    """
    data = os.urandom(1000)
    digest = await store(exchange.services.blobs, data)
    async with exchange.services.db.connection() as connection:
        project = await connection.fetchval("select id from project")
    later = clock.now() + timedelta(minutes=1)
    sweeping = asyncio.create_task(sweep_round(exchange.services, before=later))
    kept = True
    try:
        await keep(exchange.services, project=project, digest=digest, chunks=chunks(data), limit_bytes=10_000)
    except Unavailable:
        kept = False  # Told to send it again.
    swept = await sweeping
    assert swept == 1 or kept, "nothing but the sweep takes bytes away"
    assert (await exchange.services.blobs.size(digest) is not None) == kept
    async with exchange.services.db.transaction() as tx:
        named = await tx.blobs.wanted(digest)
    assert named == kept


async def test_a_store_of_two_exchanges_is_never_swept(exchange: Running) -> None:
    blobs = exchange.services.blobs
    theirs = await store(blobs, b"theirs")
    assert await blobs.mark("another exchange") is False
    assert await sweep_round(exchange.services, before=clock.now() + timedelta(minutes=1)) == 0
    assert await blobs.size(theirs) is not None
    assert await blobs.mark("another exchange") is False, "for the other neither"
