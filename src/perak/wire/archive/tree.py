"""A tree to pack: its entries, and the archive they become."""

import errno
import gzip
import hashlib
import heapq
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from perak.wire.archive.shared import (
    DEPTH_MAX,
    EXECUTABLE_MODE,
    FILE_MODE,
    FOLDER_MODE,
    ArchiveError,
    Packed,
    human,
    link_stays_inside,
    open_folder,
    open_regular,
    partial_beside,
    shown,
)

# How many of the largest files an error about size names.
OFFENDERS_SHOWN = 5
# Measured on Python sources: level 6 takes over twice as long and saves 6%; weights compress at no level.
COMPRESSION_LEVEL = 4


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to pack: `name` relative with `/`, `size_bytes` of a file only, `target` of a link only."""

    name: str
    kind: Kind
    executable: bool = False
    size_bytes: int = 0
    target: str = ""


class Unpackable(Exception):
    """An entry that cannot travel, with the reason; a work folder refuses it, outputs skip it."""


def read_entry(folder_fd: int, base: str, name: str) -> Entry:
    """What `base` stands for, by lstat alone. Raises `Unpackable` for what cannot travel."""
    path = f"{base}{name}"
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise Unpackable("its name is not UTF-8") from error
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return Entry(path, Kind.FILE, bool(status.st_mode & stat.S_IXUSR), status.st_size)
    if stat.S_ISDIR(status.st_mode):
        if path.count("/") + 1 >= DEPTH_MAX:
            raise Unpackable(f"it lies more than {DEPTH_MAX} folders deep")
        return Entry(path, Kind.FOLDER)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=folder_fd)
        if not link_stays_inside(path, target):
            raise Unpackable(f"it is a link out of the folder, to {shown(target)}")
        return Entry(path, Kind.LINK, target=target)
    raise Unpackable(f"it is a {_special_kind(status.st_mode)}")


def _special_kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def check_limits(
    entries: Sequence[Entry], limit_bytes: int, limit_files: int, *, what: str, advice: str
) -> None:
    total_bytes = sum(entry.size_bytes for entry in entries)
    if total_bytes > limit_bytes:
        largest = heapq.nlargest(OFFENDERS_SHOWN, entries, key=lambda entry: entry.size_bytes)
        names = ", ".join(f"{shown(entry.name)} ({human(entry.size_bytes)})" for entry in largest)
        raise ArchiveError(
            f"{what}: {human(total_bytes)} is over the limit of {human(limit_bytes)}. "
            f"Largest: {names}. {advice}"
        )
    if len(entries) > limit_files:
        raise ArchiveError(
            f"{what}: {len(entries):,} entries are over the limit of {limit_files:,}. {advice}"
        )


def write_archive(root_fd: int, entries: Sequence[Entry], dest: BinaryIO | Path) -> Packed:
    if isinstance(dest, Path):
        return _write_to_path(dest, lambda file: write_archive(root_fd, entries, file))
    sink = _HashingSink(dest)
    with (
        gzip.GzipFile(
            filename="", mode="wb", fileobj=sink, compresslevel=COMPRESSION_LEVEL, mtime=0
        ) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for entry in entries:
            _add(tar, root_fd, entry)
    return Packed(
        digest=f"sha256:{sink.sha256.hexdigest()}",
        size_bytes=sink.size_bytes,
        file_count=sum(entry.kind is not Kind.FOLDER for entry in entries),
        raw_bytes=sum(entry.size_bytes for entry in entries),
    )


def _write_to_path(dest: Path, write: Callable[[BinaryIO], Packed]) -> Packed:
    """Write beside `dest` and rename, so that a half-written archive never has its name."""
    partial = partial_beside(dest)
    try:
        with partial.open("xb") as file:
            packed = write(file)
        partial.replace(dest)
    finally:
        partial.unlink(missing_ok=True)
    return packed


def _add(tar: tarfile.TarFile, root_fd: int, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.name)
    match entry.kind:
        case Kind.FOLDER:
            info.type, info.mode = tarfile.DIRTYPE, FOLDER_MODE
            tar.addfile(info)
        case Kind.LINK:
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
            tar.addfile(info)
        case Kind.FILE:
            info.mode = EXECUTABLE_MODE if entry.executable else FILE_MODE
            info.size = entry.size_bytes
            base, _, name = entry.name.rpartition("/")
            try:
                with (
                    open_folder(root_fd, base) as folder_fd,
                    os.fdopen(open_regular(folder_fd, name), "rb") as file,
                ):
                    tar.addfile(info, file)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise ArchiveError(f"no room for the archive: {error.strerror}. Make room.") from error
                raise ArchiveError(
                    f"{shown(entry.name)} changed while it was packed: {error.strerror or error}. Try again."
                ) from error


class _HashingSink:
    """A writable that passes bytes on, counting and hashing them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
