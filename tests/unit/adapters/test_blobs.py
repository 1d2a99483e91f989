"""A blob is stored whole under its own digest, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perak.adapters.blobs import READ_BYTES, Blobs
from perak.domain.errors import InvalidInput, NotFound, TooLarge


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(folder: Path) -> Blobs:
    return Blobs.open(f"file://{folder}")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", [b"", b"small", bytes(range(256)) * 30_000], ids=["empty", "small", "parts"])
async def test_what_went_in_comes_out(blobs: Blobs, data: bytes) -> None:
    digest = digest_of(data)
    assert await blobs.size(digest) is None
    assert await blobs.put(digest, pieces(data), limit_bytes=10**7) == (len(data), True)
    assert await blobs.put(digest, pieces(data), limit_bytes=10**7) == (len(data), False)
    found = await blobs.get(digest)
    read = [piece async for piece in found.chunks]
    assert (found.size_bytes, b"".join(read)) == (len(data), data)
    assert all(len(piece) <= 4 * READ_BYTES for piece in read)


async def test_other_bytes_never_become_visible(blobs: Blobs, folder: Path) -> None:
    digest = digest_of(b"expected")
    for data in (b"others", bytes(20 * 2**20)):
        with pytest.raises(InvalidInput, match="digest"):
            await blobs.put(digest, pieces(data), limit_bytes=10**9)
    assert await blobs.size(digest) is None
    assert files(folder) == []
    with pytest.raises(NotFound):
        await blobs.get(digest)


async def test_a_blob_over_its_limit_is_given_up(blobs: Blobs, folder: Path) -> None:
    data = bytes(2 * 10**6)
    with pytest.raises(TooLarge):
        await blobs.put(digest_of(data), pieces(data), limit_bytes=10**6)
    assert files(folder) == []


@pytest.mark.parametrize("digest", ["", "sha256:short", "sha256:" + "g" * 64, "../" + "0" * 64])
async def test_only_digests_name_blobs(blobs: Blobs, digest: str) -> None:
    with pytest.raises(InvalidInput):
        await blobs.size(digest)


@pytest.mark.parametrize("url", ["file://relative/folder", "nonsense://x", ""])
def test_a_store_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        Blobs.open(url)
