"""What was fetched and unpacked, on disk by key: complete or not there, and the longest unused leaves first.

cache/ KEY/         the content, written by nobody any more
       KEY.json     its record, written last; its time of change is the last use
       partial/     downloads on their way, by digest: a restarted agent goes on with them
       drafts/      what is being unpacked; cleared at every start
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_SECONDS = 15 * 60.0
"""Between its making and the run that uses it a thing is in nobody's list yet."""
PARTIAL_SECONDS_MAX = 24 * 3600.0
"""A download that nobody went on with for a day is given up."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """A complete thing. `record`: what its maker noted, with `bytes` and `sources`."""

    key: str
    record: dict[str, Any]
    used_at: float

    @property
    def size_bytes(self) -> int:
        return int(self.record["bytes"])

    def may_be_given_to(self, source: str) -> bool:
        """Whether who names `source` may have it: it came from there, or from where anybody may read.

        A digest alone is no proof: it stands on receipts and in logs.
        """
        sources = self.record["sources"]
        return ANYBODY in sources or source in sources


ANYBODY = "*"


class Cache:
    """One folder of things; for the threads of one process."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self.root = root
        self._now = now
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        for folder in (root, self.partial, root / "drafts"):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            folder.chmod(0o711)
        for draft in (root / "drafts").iterdir():
            remove_tree(draft)
        for each in self.partial.iterdir():
            if now() - each.stat().st_mtime > PARTIAL_SECONDS_MAX:
                each.unlink(missing_ok=True)

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    def path(self, key: str) -> Path:
        return self.root / key

    def packed(self, content: str, source: str) -> Path:
        """Where a download lies until it is complete: of each source its own, as none vouches for another."""
        return self.partial / f"{content}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"

    def find(self, key: str) -> Entry | None:
        """The thing, if it is complete; this counts as a use."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._record(key))
            return self._entry(key)
        return None

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One thread at a time makes a thing; the others wait and find it."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder to make something in; whatever is still in it afterwards goes."""
        folder = self.root / "drafts" / secrets.token_hex(8)
        folder.mkdir(mode=0o711)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def adopt(self, draft: Path, key: str, record: dict[str, Any], *, sync: bool = True) -> None:
        """Give what was made its name; it is on the disk, whole, before its record says so.

        Without `sync` it is so only until the machine stops: the caller drops it after that.
        """
        remove_tree(self.path(key))  # without a record: an adoption or an eviction was cut short
        draft.rename(self.path(key))
        if sync:
            folder_fd = os.open(self.path(key), os.O_RDONLY | os.O_DIRECTORY)
            try:
                _libc.syncfs(folder_fd)
            finally:
                os.close(folder_fd)
        self.note(key, record)

    def note(self, key: str, record: dict[str, Any]) -> None:
        """Write the record of a thing."""
        draft = self.root / f".{key}.{secrets.token_hex(4)}"
        with draft.open("w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._record(key))

    def add_source(self, entry: Entry, source: str) -> None:
        """Note that the thing may be given to who names `source`, too."""
        sources = sorted({*entry.record["sources"], source})
        self.note(entry.key, entry.record | {"sources": sources})

    def entries(self) -> list[Entry]:
        """All complete things, the longest unused first."""
        found = []
        for file in self.root.glob("[!.]*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.append(self._entry(file.stem))
        return sorted(found, key=lambda each: each.used_at)

    def drop(self, key: str) -> None:
        self._record(key).unlink(missing_ok=True)
        remove_tree(self.path(key))

    def is_idle(self, entry: Entry, in_use: set[str]) -> bool:
        """Whether nobody uses it, and nobody is about to."""
        return entry.key not in in_use and self._now() - entry.used_at >= GRACE_SECONDS

    def evict(self, *, limit_bytes: int, in_use: set[str]) -> list[str]:
        """Drop the longest unused until the rest fits; never one in use, or of just now."""
        entries = self.entries()
        total = sum(each.size_bytes for each in entries)
        dropped = []
        for each in entries:
            if total <= limit_bytes:
                break
            if self.is_idle(each, in_use):
                self.drop(each.key)
                total -= each.size_bytes
                dropped.append(each.key)
        return dropped

    def _record(self, key: str) -> Path:
        return self.root / f"{key}.json"

    def _entry(self, key: str) -> Entry:
        file = self._record(key)
        return Entry(key, json.loads(file.read_text()), file.stat().st_mtime)


def remove_tree(path: Path) -> None:
    """Remove a folder or a file whose folders may be closed to us; one that isn't there is no error."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
