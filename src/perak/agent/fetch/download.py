"""One file to disk: verified by its digest, bounded, and gone on with after a cut or a restart."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from perak.agent.fetch import wanted
from perak.agent.fetch.web import Refusal, read
from perak.domain.errors import DomainError, TooLarge, Unavailable

CHUNK_BYTES = 1024 * 1024
FREE_BYTES_MIN = 2 * 2**30
"""The node's own journal and other runs live on the same disk: a download must leave them this."""
RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 30.0
WANTED_SECONDS = 0.5
"""How often a wait looks whether it is still for something."""
DAMAGED_MAX = 2
"""Twice the wrong bytes is no accident of the network."""

Progress = Callable[[int], None]
"""Told how many bytes of the whole are there, often."""


class Damaged(DomainError):
    """What came is not what its digest says."""

    code = "damaged"


Source = Callable[[int], AbstractContextManager[tuple[Iterator[bytes], int]]]
"""Opens the bytes from an offset on; the second value is where they really begin, 0 or that offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """How hard to try. `attempts_max` counts tries in a row that brought nothing."""

    attempts_max: int
    retry_seconds: float = RETRY_SECONDS

    def fetch(
        self, source: Source, target: Path, *, digest: str | None, limit_bytes: int, progress: Progress
    ) -> str:
        """Bring `target` to the whole content and return its digest (``sha256:<hex>``).

        What is in `target` already is kept and gone on from. Raises Damaged (and removes it) where the
        content has another digest than `digest`, TooLarge beyond `limit_bytes`, Unavailable when all tries
        failed; what came by then stays for the next time.
        """
        failures = damaged = 0
        while True:
            before = _size(target)
            try:
                found = _go_on(source, target, limit_bytes, progress)
            except (Unavailable, TooLarge) as error:
                if isinstance(error, TooLarge):
                    target.unlink(missing_ok=True)
                    raise
                failures = 1 if _size(target) > before else failures + 1
                if failures >= self.attempts_max:
                    raise Unavailable(f"{error.detail}; tried {failures} times") from None
                _wait(min(self.retry_seconds * 2 ** (failures - 1), RETRY_SECONDS_MAX))
                continue
            if digest is None or found == digest:
                return found
            target.unlink(missing_ok=True)
            damaged += 1
            if damaged >= DAMAGED_MAX:
                raise Damaged(f"what came has the digest {found}, and {digest} was asked for")


def _wait(seconds: float) -> None:
    """Before the next try; not for what nobody wants any more."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        wanted.check()
        time.sleep(min(left, WANTED_SECONDS))


def _go_on(source: Source, target: Path, limit_bytes: int, progress: Progress) -> str:
    """Fetch what is missing, once."""
    hashed, size = hashlib.sha256(), 0
    with target.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
            size += len(chunk)
        try:
            with source(size) as (chunks, begins):
                if begins != size:
                    hashed, size = hashlib.sha256(), 0
                    file.truncate(0)
                for chunk in chunks:
                    wanted.check()
                    size += len(chunk)
                    if size > limit_bytes:
                        raise TooLarge(f"it is larger than {limit_bytes:,} bytes, which is the limit here")
                    hashed.update(chunk)
                    file.write(chunk)
                    progress(size)
                    _check_room(target, len(chunk))
        except Refusal as error:
            if error.status != 416 or size == 0:
                raise
            # Nothing is left to send: either all of it is there, or it is another file now.
    return f"sha256:{hashed.hexdigest()}"


def web_chunks(response: http.client.HTTPResponse, offset: int) -> tuple[Iterator[bytes], int]:
    """What a `Source` gives, from the answer to a GET with ``Range: bytes=<offset>-``."""
    begins = 0
    if response.status == 206:
        match = re.match(r"bytes (\d+)-", response.getheader("Content-Range") or "")
        if match is None or int(match[1]) != offset:
            raise Unavailable("the server sent another part than was asked for")
        begins = offset

    def chunks() -> Iterator[bytes]:
        left = response.length
        while chunk := read(response, limit_bytes=CHUNK_BYTES):
            left = None if left is None else left - len(chunk)
            yield chunk
        if left:
            raise Unavailable(f"the connection was cut {left:,} bytes before the end")

    return chunks(), begins


def range_header(offset: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-"} if offset else {}


def _check_room(target: Path, chunk_bytes: int) -> None:
    if shutil.disk_usage(target.parent).free - chunk_bytes < FREE_BYTES_MIN:
        raise TooLarge("the node's disk is almost full; name something smaller, or another node")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
