"""Blobs on an S3-speaking server, as two replicas share them."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest

from perak.adapters.blobs import Blobs
from perak.domain.errors import NotFound, TooLarge


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket on a server of the tests' own, with the environment that leads to it."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        (url,) = next(
            found for line in server.stderr if (found := re.findall(r"http://127\.0\.0\.1:\d+", line))
        )
        urllib.request.urlopen(urllib.request.Request(f"{url}/perak", method="PUT")).close()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT": url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "someone",
                "AWS_SECRET_ACCESS_KEY": "something",
                "AWS_REGION": "us-east-1",
            }.items():
                patch.setenv(name, value)
            yield "s3://perak/blobs"
    finally:
        server.kill()
        server.wait()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_what_one_replica_stores_another_has(bucket: str) -> None:
    one, other = Blobs.open(bucket), Blobs.open(bucket)
    for data in (b"", b"small", bytes(range(256)) * 50_000):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert await other.size(digest) is None
        assert await one.put(digest, pieces(data), limit_bytes=len(data)) == (len(data), True)
        assert await other.put(digest, pieces(data), limit_bytes=len(data)) == (len(data), False)
        assert await other.size(digest) == len(data)
        stored = await other.get(digest)
        assert b"".join([piece async for piece in stored.chunks]) == data


async def test_too_much_is_refused_and_leaves_nothing(bucket: str) -> None:
    blobs = Blobs.open(bucket)
    data = bytes(12_000_000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(TooLarge):
        await blobs.put(digest, pieces(data), limit_bytes=1_000_000)
    assert await blobs.size(digest) is None
    with pytest.raises(NotFound):
        await blobs.get(digest)
