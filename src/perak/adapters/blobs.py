"""Blobs (work folders, outputs) by their digest, in a local folder or an S3-compatible store.

A blob is written once and never changes, so replicas can share a store. The digest is checked while the
bytes stream in; a blob that does not have the digest that it is named by never becomes visible.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perak.domain.errors import InvalidInput, NotFound, TooLarge, Unavailable
from perak.domain.units import format_bytes

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

READ_BYTES = 256 * 1024
"""Bytes in one piece of a download: what one slow reader makes us hold."""
UPLOAD_PART_BYTES = 5 * 2**20
"""The smallest part that S3 takes in a multipart upload; two of them are in memory at once."""
UPLOAD_PARTS_AT_ONCE = 2

LISTED_AT_ONCE = 1_000
"""What S3 lists in one answer."""
OWNER = "owner"
"""Where the store says which exchange uses it."""
SHARED = "shared"

FULL = os.strerror(errno.ENOSPC)

_DIGEST = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62})")


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob to read: its size, and its bytes in pieces of about READ_BYTES."""

    size_bytes: int
    chunks: AsyncIterator[bytes]


class Blobs:
    """The store of one exchange."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        """`folder`: where a local store is."""
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, url: str) -> Blobs:
        """The store at `url`: ``file:///folder`` (made if needed) or ``s3://bucket/prefix``.

        Keys of S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT and so on). Raises InvalidInput.
        """
        from obstore.store import LocalStore, from_url

        if url.startswith("file://"):
            folder = Path(url.removeprefix("file://"))
            if not folder.is_absolute():
                raise InvalidInput(f"a folder for blobs is absolute, like file:///srv/blobs; this is {url!r}")
            return cls(LocalStore(folder, mkdir=True, automatic_cleanup=False), folder)
        try:
            return cls(from_url(url))
        except Exception as error:  # obstore's errors have no common base that it exports
            raise InvalidInput(
                f"blobs can't be kept at {url!r}: {error}; use file:///folder or s3://…"
            ) from None

    async def size(self, digest: str) -> int | None:
        """Bytes of the blob; None where there is none."""
        import obstore

        try:
            return (await obstore.head_async(self._store, _path(digest)))["size"]
        except FileNotFoundError:
            return None

    async def put(self, digest: str, chunks: AsyncIterable[bytes], *, limit_bytes: int) -> tuple[int, bool]:
        """Store a blob; its size, and whether it is new here.

        Whoever sends a blob that is here already sends all of it all the same: knowing a digest is no proof
        of having the bytes. Raises InvalidInput where they have another digest, TooLarge over `limit_bytes`.
        """
        import obstore

        checked = _Checked(digest, chunks, limit_bytes)
        known = await self.size(digest)
        if known is not None:
            async for _ in checked:
                pass
            return known, False
        try:
            await obstore.put_async(
                self._store,
                _path(digest),
                checked,
                chunk_size=UPLOAD_PART_BYTES,
                max_concurrency=UPLOAD_PARTS_AT_ONCE,
            )
        except Exception as error:  # obstore's errors have no common base, and no errno
            if FULL not in str(error):
                raise
            raise Unavailable(
                "the exchange has no room for this blob; its operator has to make some; try again",
                code="disk_full",
            ) from None
        if self._folder is not None:
            await asyncio.to_thread(_sync, self._folder / _path(digest), self._folder)
        return checked.size_bytes, True

    async def mark(self, owner: str) -> bool:
        """Say who uses the store; False where another did too, which is noted for good."""
        import obstore

        try:
            result = await obstore.get_async(self._store, OWNER)
            found = bytes(await result.bytes_async()).decode()
        except FileNotFoundError:
            found = None
        if found not in (owner, SHARED):
            found = owner if found is None else SHARED
            await obstore.put_async(self._store, OWNER, found.encode())
        return found == owner

    async def older(self, before: datetime) -> AsyncIterator[list[str]]:
        """The digests of blobs that were stored before a time, some at once."""
        import obstore

        async for page in obstore.list(self._store, prefix="sha256", chunk_size=LISTED_AT_ONCE):
            names = [item["path"].rpartition("/")[2] for item in page if item["last_modified"] < before]
            yield [digest for name in names if _DIGEST.fullmatch(digest := f"sha256:{name}")]

    async def clear_partial(self, before: datetime) -> None:
        """Delete what uploads that a crash cut left in a local store; on S3 a lifecycle rule does."""
        if self._folder is not None:
            await asyncio.to_thread(_clear_partial, self._folder, before.timestamp())

    async def delete(self, digest: str) -> None:
        """Delete a blob; one that is not there is well."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, _path(digest))

    async def read(self, digest: str, *, start: int, end: int | None) -> bytes:
        """The blob's bytes from `start` up to `end` (None: its own). Raises NotFound."""
        blob = await self.get(digest, offset=start, end=end)
        return b"".join([piece async for piece in blob.chunks])

    async def get(self, digest: str, *, offset: int = 0, end: int | None = None) -> StoredBlob:
        """The blob, to be read in pieces from `offset` (below its size) up to `end`. Raises NotFound."""
        import obstore

        asked: GetOptions = {}
        if end is not None:
            asked = {"range": (offset, end)}
        elif offset:
            asked = {"range": {"offset": offset}}
        try:
            found = await obstore.get_async(self._store, _path(digest), options=asked or None)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}; upload it with PUT /v1/blobs/{digest}") from None
        return StoredBlob(
            size_bytes=found.meta["size"], chunks=_pieces(found.stream(min_chunk_size=READ_BYTES))
        )


class _Checked:
    """The same bytes; it raises at their end if they do not have the digest, so that nothing is stored."""

    def __init__(self, digest: str, chunks: AsyncIterable[bytes], limit_bytes: int) -> None:
        self._digest = digest
        self._chunks = chunks
        self._limit_bytes = limit_bytes
        self.size_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sha = hashlib.sha256()
        async for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._limit_bytes:
                raise TooLarge(f"a blob may have {format_bytes(self._limit_bytes)} here; this one has more")
            sha.update(chunk)
            if chunk:
                yield chunk
        if f"sha256:{sha.hexdigest()}" != self._digest:
            raise InvalidInput(
                f"the bytes have the digest sha256:{sha.hexdigest()}, not {self._digest}: they were damaged "
                "on the way, or changed meanwhile; send them again",
                code="digest_mismatch",
            )


def _clear_partial(folder: Path, before: float) -> None:
    """The store writes to ``<name>#<number>`` and renames it in the end."""
    for path in (folder / "sha256").glob("*/*#*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()


def _sync(path: Path, folder: Path) -> None:
    """Bring a file, and its name in each folder up to `folder`, to the disk: what is acknowledged is kept."""
    at = path
    while True:
        handle = os.open(at, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if at == folder:
            break
        at = at.parent


async def _pieces(stream: AsyncIterable[object]) -> AsyncIterator[bytes]:
    async for piece in stream:
        yield bytes(piece)  # type: ignore[call-overload]  # obstore's Bytes is a buffer, untyped as one


def _path(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidInput(f"{digest[:90]!r} is not a digest; one looks like sha256:<64 hex digits>")
    return f"sha256/{match[1]}/{match[1]}{match[2]}"
