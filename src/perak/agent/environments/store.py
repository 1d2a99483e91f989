"""Finished environments on the node's disk: found by key, sealed, locked, and evicted when too many.

environments/ ENVIRONMENT-KEY/        a finished environment, root's, writable by nobody ENVIRONMENT-KEY.json
what it is and how large; its time of change is the last use resolved/REQUEST.json   which key a request led
to, and when locks/ drafts/ uv-cache/
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perak.agent.environments.errors import NotInstalled

# Five large GPU stacks, or a hundred of the usual size.
TOTAL_BYTES_MAX = 30 * 2**30
# One environment: PyTorch with CUDA is 6 GB installed.
ENVIRONMENT_BYTES_MAX = 20 * 2**30
# uv's downloads, kept so that environments with packages in common share the work.
DOWNLOADS_BYTES_MAX = 10 * 2**30
# Between `ensure` and the run that uses it an environment is in nobody's list yet.
EVICTION_GRACE_SECONDS = 15 * 60.0
# New releases appear; within a day the same request means the same packages.
RESOLUTION_SECONDS_MAX = 24 * 3600.0
KEY_CHARACTERS = 32
# Two keys that share a lock wait for each other; with so many that is rare, and harmless.
LOCKS_PER_KIND = 256

_KEY = re.compile(rf"[0-9a-f]{{{KEY_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a request led to: the environment's key and the exact requirements, with hashes."""

    key: str
    requirements: str


def digest_of(*parts: str) -> str:
    """A key made of `parts`, none of which can be mistaken for another's end."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:KEY_CHARACTERS]


class Store:
    """The folder in which environments are kept; safe for several threads and processes."""

    def __init__(
        self,
        root: Path,
        *,
        total_bytes_max: int = TOTAL_BYTES_MAX,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.root = root
        self._total_bytes_max = total_bytes_max
        self._now = now
        for folder in (root, root / "resolved", root / "locks", root / "drafts"):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.chmod(0o755)
        self._clear_drafts()

    def path(self, key: str) -> Path:
        return self.root / key

    def has(self, key: str) -> bool:
        """Whether the environment is finished; if so, this counts as a use."""
        try:
            os.utime(self._record(key))
        except FileNotFoundError:
            return False
        return self.path(key).is_dir()

    def resolution(self, request: str) -> Resolution | None:
        """What the request led to, unless that was too long ago."""
        try:
            kept = json.loads((self.root / "resolved" / f"{request}.json").read_text())
            if not 0 <= self._now() - kept["resolved_at"] < RESOLUTION_SECONDS_MAX:
                return None
            return Resolution(kept["key"], kept["requirements"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def keep_resolution(self, request: str, resolution: Resolution) -> None:
        contents = {
            "resolved_at": self._now(),
            "key": resolution.key,
            "requirements": resolution.requirements,
        }
        _write_whole(self.root / "resolved" / f"{request}.json", json.dumps(contents))

    @contextmanager
    def lock(self, what: str, key: str = "", *, shared: bool = False) -> Iterator[None]:
        """Hold a lock against other threads and processes; it falls with its holder.

        Keys share a fixed number of lock files: those could not be removed safely when nobody needs them.
        """
        number = int(key, 16) % LOCKS_PER_KIND if key else 0
        with (self.root / "locks" / f"{what}-{number}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A new folder to build in; it is gone after the block, with all that was not moved out of it.

        Its lock is held meanwhile, so that a restarted agent clears only the drafts of the dead.
        """
        folder = self.root / "drafts" / secrets.token_hex(8)
        lock_file = self._draft_lock(folder)
        with lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            folder.mkdir(mode=0o755)
            try:
                yield folder
            finally:
                remove_tree(folder)
                lock_file.unlink(missing_ok=True)

    def adopt(self, draft: Path, key: str, *, interpreter: Path, requirements: str) -> None:
        """Seal a built environment and give it its name. Raises `NotInstalled` if it can't be trusted."""
        size_bytes = seal(draft, interpreter)
        if self.path(key).exists():
            remove_tree(self.path(key))  # Its record is missing: an eviction or an adoption was cut short.
        draft.rename(self.path(key))
        record = {"size_bytes": size_bytes, "requirements": requirements, "made_at": self._now()}
        _write_whole(self._record(key), json.dumps(record))

    def evict(self, in_use: set[str]) -> list[str]:
        """Remove the longest unused environments until the rest fit; never one in use or of just now."""
        kept = sorted(self._records(), key=lambda each: each.used_at)
        total_bytes = sum(each.size_bytes for each in kept)
        evicted = []
        for each in kept:
            if total_bytes <= self._total_bytes_max:
                break
            if each.key in in_use or self._now() - each.used_at < EVICTION_GRACE_SECONDS:
                continue
            with self.lock("install", each.key):
                self._record(each.key).unlink(missing_ok=True)
                remove_tree(self.path(each.key))
            total_bytes -= each.size_bytes
            evicted.append(each.key)
        return evicted

    def forget_old_resolutions(self) -> None:
        """Remove what `resolution` would not answer with any more."""
        for file in (self.root / "resolved").iterdir():
            if self._now() - file.stat().st_mtime >= RESOLUTION_SECONDS_MAX:
                file.unlink(missing_ok=True)

    def _draft_lock(self, folder: Path) -> Path:
        return self.root / "locks" / f"draft-{folder.name}"

    def _record(self, key: str) -> Path:
        assert _KEY.fullmatch(key), "keys are made by digest_of"
        return self.root / f"{key}.json"

    def _records(self) -> Iterator["_Record"]:
        for file in self.root.glob("*.json"):
            if _KEY.fullmatch(file.stem):
                try:
                    yield _Record(file.stem, json.loads(file.read_text())["size_bytes"], file.stat().st_mtime)
                except (OSError, ValueError, KeyError):
                    continue

    def _clear_drafts(self) -> None:
        """Remove what an agent that was killed left half built."""
        for folder in (self.root / "drafts").iterdir():
            with self._draft_lock(folder).open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                remove_tree(folder)
                Path(file.name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Record:
    key: str
    size_bytes: int
    used_at: float


def seal(folder: Path, interpreter: Path) -> int:
    """Make `folder` ours and read-only, and return its size in bytes.

    Another uid wrote it: no link is followed, and links other than to the interpreter or within, files with a
    second name elsewhere and special files are refused with `NotInstalled`.
    """
    owner = (os.geteuid(), os.getegid())
    size_bytes = 0
    for _, folders, files, folder_fd in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=folder_fd)
                if target != str(interpreter) and ("/" in target or target == ".."):
                    raise NotInstalled(f"a package placed a link to {target!r}, which is refused.")
                os.chown(name, *owner, dir_fd=folder_fd, follow_symlinks=False)
                continue
            if not stat.S_ISDIR(status.st_mode):
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise NotInstalled(f"a package placed {name!r}, which is no plain file and is refused.")
                size_bytes += status.st_blocks * 512
            os.chown(name, *owner, dir_fd=folder_fd, follow_symlinks=False)
            executable = stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IXUSR
            os.chmod(name, 0o555 if executable else 0o444, dir_fd=folder_fd)
        if size_bytes > ENVIRONMENT_BYTES_MAX:
            raise NotInstalled(
                f"the packages take more than {ENVIRONMENT_BYTES_MAX / 2**30:.0f} GiB installed, which is "
                "the limit on this node. Name fewer or smaller packages."
            )
    os.chown(folder, *owner)
    folder.chmod(
        0o755
    )  # A folder without write permission cannot be renamed by its owner, unless that is root.
    return size_bytes


def tree_bytes(folder: Path) -> int:
    """What a folder takes on disk; others may write in it meanwhile."""
    size_bytes = 0
    for _, _, files, folder_fd in os.fwalk(folder, follow_symlinks=False):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size_bytes += os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_blocks * 512
    return size_bytes


def remove_tree(folder: Path) -> None:
    """Remove a folder that may be sealed; one that is not there is no error."""
    if os.geteuid() != 0 and folder.is_dir() and not folder.is_symlink():
        for path, _, _ in os.walk(folder):
            os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _write_whole(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    partial.write_text(text)
    partial.replace(file)
