"""What both directions need: limits, errors, and ways to open what a stranger may have made."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
# Code and small data: larger sets are inputs with a place of their own, not part of every upload.
WORKDIR_BYTES_MAX = 512 * MIB
WORKDIR_FILES_MAX = 20_000
# A fine-tuned model of a few billion parameters fits; what is larger belongs in the renter's own store.
OUTPUTS_BYTES_MAX = 8 * 1024 * MIB
OUTPUTS_FILES_MAX = 50_000
# A job can fill its scratch with empty files; past this many we stop looking instead of walking for hours.
WALK_ENTRIES_MAX = 500_000
# Deep trees make every open slow (we walk from the root each time); no real project comes near.
DEPTH_MAX = 64
CHUNK_BYTES = 256 * 1024

FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
FOLDER_MODE = 0o755

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK keeps a pipe that took a file's place from holding us for ever.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class ArchiveError(ValueError):
    """A tree or an archive that we refuse; its message is for the user and says what to do."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What an archive holds.

    `size_bytes` is the archive, `raw_bytes` the contents before compression; `file_count` counts files and
    links. `missing` are the output patterns that matched nothing, `skipped` the paths left out, each with its
    reason.
    """

    digest: str
    size_bytes: int
    file_count: int
    raw_bytes: int
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NothingPacked:
    """No archive was made, as nothing was there, or nothing that can be taken; the same lists say which."""

    missing: tuple[str, ...]
    skipped: tuple[str, ...]


def link_stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path` cannot lead out of the tree, even through other links that pass this test.

    Every `..` must come first and there may be no more of them than folders above the link: then the climb
    ends in a real folder of the tree, and each step down meets a real entry or a link for which the same
    holds.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    try:
        target.encode()
    except UnicodeEncodeError:
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return ".." not in parts[climbs:] and climbs <= path.count("/")


@contextmanager
def open_folder(root_fd: int, base: str) -> Iterator[int]:
    """Open the folder `base` below `root_fd` one part at a time; a link anywhere on the way is an OSError."""
    folder_fd = os.dup(root_fd)
    try:
        for part in base.split("/"):
            if part:
                inner_fd = os.open(part, FOLDER_FLAGS, dir_fd=folder_fd)
                os.close(folder_fd)
                folder_fd = inner_fd
        yield folder_fd
    finally:
        os.close(folder_fd)


def open_regular(folder_fd: int, name: str) -> int:
    """A descriptor to read a regular file; OSError for anything else, even if just put in its place."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "it is no longer a file")
    file_fd = os.open(name, READ_FLAGS, dir_fd=folder_fd)
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        os.close(file_fd)
        raise OSError(errno.EINVAL, "it is no longer a file")
    return file_fd


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def partial_beside(dest: Path) -> Path:
    return dest.with_name(f".{dest.name}.{secrets.token_hex(6)}.partial")


def shown(name: str) -> str:
    """A name that a stranger chose, safe to print in a terminal or a log."""
    return name if name.isprintable() else ascii(name)


def human(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return f"{value:.1f} {unit}"
