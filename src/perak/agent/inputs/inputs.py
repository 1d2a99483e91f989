"""From a job's `inputs` to mounts: fetch, verify, unpack where asked, keep by content, evict.

inputs/ KEY-file/file   what came, as it came (key: hex digest of the content)
        KEY-tree/tree   a tar archive, unpacked by an unprivileged user
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from perak.agent.fetch.cache import ANYBODY, Cache, Entry
from perak.agent.fetch.download import Downloads, range_header, web_chunks
from perak.agent.fetch.progress import Teller
from perak.agent.fetch.reach import Reach
from perak.agent.fetch.wanted import NotWanted
from perak.agent.fetch.web import get
from perak.agent.images.process import Limits, Unpacker
from perak.agent.images.trees import FOLDER_FLAGS, Refused
from perak.agent.inputs import s3
from perak.agent.sandbox import Mount
from perak.domain.errors import DomainError, InvalidInput, TooLarge, Unavailable
from perak.domain.units import format_bytes
from perak.wire.session import InputOrder

INPUT_BYTES_MAX = 200 * 2**30
"""Of one input, packed or unpacked: a large public dataset. The cache's own size counts before it."""
INPUT_FILES_MAX = 2_000_000
"""ImageNet has 1.3 million."""
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")

NO_CREDENTIALS: Mapping[str, s3.S3Credentials] = MappingProxyType({})

Say = Callable[[str], None]
Opened = AbstractContextManager[tuple[Iterator[bytes], int]]


class InputFailed(DomainError):
    """An input can't be had; the message names it, and says why."""

    code = "input_failed"


class Outputs(Protocol):
    """What `perak.agent.blobs.Blobs` is to us: outputs of earlier jobs of the same project."""

    def open_input(self, lease: str, digest: str, offset: int) -> Opened: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    cache_bytes: int
    input_bytes: int = INPUT_BYTES_MAX
    files: int = INPUT_FILES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Where an input's content comes from. `source`: who names it may have what is cached from it."""

    identity: str
    source: str
    digest: str | None
    size_bytes: int | None
    open: Callable[[int], Opened]


class Inputs:
    """The inputs of a node. Its methods may be called from several threads at once."""

    def __init__(
        self,
        state_dir: Path,
        *,
        uid: int | None,
        reach: Reach,
        downloads: Downloads,
        limits: InputLimits,
        outputs: Outputs,
        s3_settings: s3.S3Settings | None = None,
        in_use: Callable[[], set[str]] = set,
    ) -> None:
        """Keep inputs under `state_dir`/inputs; unpack as `uid` (None: as ourselves, not root).

        `in_use` names the entries of the cache that runs use now.
        """
        self._cache = Cache(state_dir.resolve() / "inputs")
        most = min(limits.input_bytes, limits.cache_bytes)
        self._input_bytes = most
        self._unpacker = Unpacker(uid=uid, limits=Limits(bytes=most, files=limits.files))
        self._reach = reach
        self._downloads = downloads
        self._limits = limits
        self._outputs = outputs
        self._s3 = s3_settings or s3.S3Settings()
        self._in_use = in_use

    def ensure(
        self,
        lease: str,
        wanted: tuple[InputOrder, ...],
        *,
        say: Say,
        credentials: Mapping[str, s3.S3Credentials] = NO_CREDENTIALS,
    ) -> tuple[Mount, ...]:
        """What to mount for `wanted`, fetched if it isn't there. Raises InputFailed, Unavailable, NotWanted.

        `credentials`: those that `wanted` names.
        """
        mounts = []
        for each in wanted:
            try:
                mounts.append(self._ensure(lease, each, credentials.get(each.credentials or ""), say))
            except NotWanted:
                raise
            except (DomainError, Refused, OSError) as error:
                why = error.detail if isinstance(error, DomainError) else str(error)
                kind = Unavailable if isinstance(error, Unavailable) else InputFailed
                raise kind(f"the input {each.path} ({each.url}): {why}") from None
        self._cache.evict(limit_bytes=self._limits.cache_bytes, in_use=self._in_use())
        return tuple(mounts)

    def _ensure(
        self, lease: str, wanted: InputOrder, credentials: s3.S3Credentials | None, say: Say
    ) -> Mount:
        found, part = self._find(lease, wanted, credentials)
        name = Path(unquote(urlsplit(wanted.url).path)).name or "input"
        is_tree = wanted.url.startswith("job:") or (
            wanted.path.endswith("/") and name.lower().endswith(ARCHIVES)
        )
        key = f"{found.identity}-{'tree' if is_tree else 'file'}"
        with self._cache.lock(found.identity):
            entry = self._cache.find(key)
            if entry is None or not entry.may_be_given_to(found.source):
                entry = self._make(key, found, entry, wanted, say, is_tree=is_tree)
        target = f"/work/{wanted.path.removesuffix('/')}"
        if not is_tree:
            source = self._cache.path(key) / "file"
            # A file named for a folder goes into it, as `cp` has it.
            return Mount(
                source=str(source), target=f"{target}/{name}" if wanted.path.endswith("/") else target
            )
        tree = self._cache.path(key) / "tree"
        return Mount(source=str(_inside(tree, part) if part else tree), target=target)

    def _find(
        self, lease: str, wanted: InputOrder, credentials: s3.S3Credentials | None
    ) -> tuple[_Found, str]:
        """The content's source, and the part of it that is wanted (of outputs alone)."""
        url, digest = wanted.url, wanted.digest
        if url.startswith("s3://"):
            # Whoever comes here has just been shown the object by the store itself, with its own key.
            there = s3.find(url, self._s3, credentials)
            told = hashlib.sha256(f"{url} {there.etag} {there.size_bytes}".encode()).hexdigest()
            identity = digest.removeprefix("sha256:") if digest else f"s3-{told}"
            return _Found(
                identity=identity,
                source=ANYBODY if credentials is None else url,
                digest=digest,
                size_bytes=there.size_bytes,
                open=there.open,
            ), ""
        if digest is None:
            raise InvalidInput("has no digest; only s3 may be named without one")
        identity = digest.removeprefix("sha256:")
        if url.startswith("job:"):
            # The exchange has looked whose outputs these are, and looks again before it sends them.
            return _Found(
                identity=identity,
                source=url.partition("/")[0],
                digest=digest,
                size_bytes=None,
                open=lambda offset: self._outputs.open_input(lease, digest, offset),
            ), url.partition("/")[2]
        return _Found(
            identity=identity,
            source=url,
            digest=digest,
            size_bytes=None,
            open=lambda offset: self._open_web(url, offset),
        ), ""

    @contextmanager
    def _open_web(self, url: str, offset: int) -> Iterator[tuple[Iterator[bytes], int]]:
        with get(url, reach=self._reach, headers=range_header(offset)) as response:
            yield web_chunks(response, offset)

    def _make(
        self, key: str, found: _Found, entry: Entry | None, wanted: InputOrder, say: Say, *, is_tree: bool
    ) -> Entry:
        """Fetch, and unpack or keep as it is; or, if it is here from elsewhere, only learn the source."""
        packed = self._cache.packed(found.identity, found.source)
        size = f" ({format_bytes(found.size_bytes)})" if found.size_bytes else ""
        say(f"fetching the input {wanted.path} from {wanted.url}{size}")
        if found.size_bytes is not None and found.size_bytes > self._input_bytes:
            raise TooLarge(
                f"it has {format_bytes(found.size_bytes)}; this node takes {format_bytes(self._input_bytes)}"
            )
        digest = self._downloads.fetch(
            found.open,
            packed,
            digest=found.digest,
            limit_bytes=self._input_bytes,
            progress=Teller(say, f"fetching the input {wanted.path}", found.size_bytes).now,
        )
        if entry is not None:
            packed.unlink(missing_ok=True)
            self._cache.add_source(entry, found.source)
        elif is_tree:
            say(f"unpacking the input {wanted.path}")
            self._keep_tree(key, packed, digest, found.source)
        else:
            self._keep_file(key, packed, digest, found.source)
        if found.digest is None:
            say(f"the input {wanted.path} has the digest {digest}; name it to pin what the job reads")
        made = self._cache.find(key)
        assert made is not None, "it was just adopted"
        return made

    def _keep_file(self, key: str, packed: Path, digest: str, source: str) -> None:
        size = packed.stat().st_size
        with self._cache.draft() as draft:
            folder = draft / "input"
            folder.mkdir()
            folder.chmod(0o711)
            packed.chmod(0o444)
            packed.rename(folder / "file")
            self._cache.adopt(folder, key, {"bytes": size, "sources": [source], "digest": digest})

    def _keep_tree(self, key: str, packed: Path, digest: str, source: str) -> None:
        with self._cache.draft() as draft:
            folder = draft / "input"
            folder.mkdir()
            folder.chmod(0o711)
            try:
                done: dict[str, Any] = self._unpacker.unpack(
                    packed, self._unpacker.own(folder / "tree"), diff_id=None, plain=True
                )
            finally:
                packed.unlink(missing_ok=True)
            record = {"bytes": done["bytes"], "sources": [source], "digest": digest}
            self._cache.adopt(folder, key, record)


def _inside(tree: Path, part: str) -> Path:
    """A file or folder of unpacked outputs; no link is followed on the way, nor at its end."""
    parts = [each for each in part.split("/") if each not in ("", ".")]
    folder_fd = os.open(tree, FOLDER_FLAGS)
    try:
        for each in parts[:-1]:
            inner_fd = os.open(each, FOLDER_FLAGS, dir_fd=folder_fd)
            os.close(folder_fd)
            folder_fd = inner_fd
        mode = os.stat(parts[-1], dir_fd=folder_fd, follow_symlinks=False).st_mode if parts else stat.S_IFDIR
    except OSError:
        mode = 0
    finally:
        os.close(folder_fd)
    if ".." in parts or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidInput(f"the outputs of that job have no {part!r}")
    return tree.joinpath(*parts)
