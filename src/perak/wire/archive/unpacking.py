"""Unpacking an archive that anyone may have made."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from perak.wire.archive.shared import (
    CHUNK_BYTES,
    DEPTH_MAX,
    EXECUTABLE_MODE,
    FILE_MODE,
    FOLDER_FLAGS,
    FOLDER_MODE,
    ArchiveError,
    closing_fd,
    human,
    link_stays_inside,
    partial_beside,
    shown,
)

# A tar's long names arrive in headers that tarfile reads into memory at once; PATH_MAX is 4,096 bytes.
HEADER_BYTES_MAX = 64 * 1024
# What an archive may hold beyond its contents: two headers an entry, each padded to a block, and the end.
ENTRY_OVERHEAD_BYTES = 4096
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    src: BinaryIO | Path,
    dest: Path,
    *,
    limit_bytes: int,
    limit_files: int,
    owner: tuple[int, int] | None = None,
) -> None:
    """Unpack an archive that anyone may have made into `dest`, a new or an empty folder; all or nothing.

    Refused: absolute names, `..`, names that come twice or lead through a link, hard links, devices, links
    out of `dest`, and more than `limit_bytes` of contents or `limit_files` entries, however small the
    archive. Setuid, setgid and sticky bits are dropped. `owner` is (uid, gid) for all that is made, for an
    agent that is root.

    Errors: `ArchiveError`; `dest` is then absent, or empty if it was there before.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(src.open("rb")) if isinstance(src, Path) else src
        if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
            raise ArchiveError(f"cannot unpack to {dest}: it is not a folder. Name a new or an empty folder.")
        if not dest.exists():
            _unpack_and_rename(stream, dest, limit_bytes, limit_files, owner)
            return
        if any(dest.iterdir()):
            raise ArchiveError(
                f"cannot unpack to {dest}: the folder is not empty. Name a new or an empty folder."
            )
        try:
            _unpack_into(stream, dest, limit_bytes, limit_files, owner)
        except BaseException:
            _empty(dest)
            raise


def _unpack_and_rename(
    stream: BinaryIO, dest: Path, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
) -> None:
    partial = partial_beside(dest)
    partial.mkdir(mode=0o700, parents=True)
    try:
        _unpack_into(stream, partial, limit_bytes, limit_files, owner)
        partial.chmod(FOLDER_MODE)
        if owner:
            os.chown(partial, *owner)
        partial.rename(dest)
    except OSError as error:
        raise ArchiveError(f"cannot unpack to {dest}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_into(
    stream: BinaryIO, dest: Path, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
) -> None:
    source = _BoundedSource(stream, limit_bytes, limit_files)
    try:
        with (
            closing_fd(os.open(dest, FOLDER_FLAGS)) as root_fd,
            tarfile.open(
                fileobj=source, mode="r|", tarinfo=_BoundedTarInfo, encoding="utf-8", errors="strict"
            ) as tar,
        ):
            _Unpacker(root_fd, limit_bytes, limit_files, owner).unpack_all(tar)
        source.drain()
    except ArchiveError:
        raise
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        UnicodeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ArchiveError(f"the archive is damaged: {error}. Make and send it again.") from error
    except ValueError as error:
        raise ArchiveError(f"the archive is not a valid tar: {error}. Make and send it again.") from error
    except OSError as error:
        raise ArchiveError(f"cannot unpack to {dest}: {error.strerror or error}.") from error


class _BoundedSource(io.RawIOBase):
    """Decompresses, and stops before a small archive becomes a large one.

    Contents have their own exact limit; this one also bounds headers, padding and what follows the tar's end.
    """

    def __init__(self, stream: BinaryIO, limit_bytes: int, limit_files: int) -> None:
        self._zipped = gzip.GzipFile(fileobj=stream, mode="rb")
        self._left = limit_bytes + (limit_files + 16) * ENTRY_OVERHEAD_BYTES
        self._limit_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "a bounded source is read in bounded pieces"
        data = self._zipped.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(_too_large(self._limit_bytes))
        return data

    def drain(self) -> None:
        """Read to the end, so that the compressed stream's own checksum is checked."""
        while self.read(CHUNK_BYTES):
            pass


class _BoundedTarInfo(tarfile.TarInfo):
    """A header checked before tarfile acts on its claims: it reads extended headers into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0:
            raise ArchiveError(
                "the archive is damaged: an entry has a negative size. Make and send it again."
            )
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)
        if info.type not in plain and info.size > HEADER_BYTES_MAX:
            raise ArchiveError(
                f"the archive has a header of {human(info.size)}; {human(HEADER_BYTES_MAX)} is the most."
            )
        return info


class _Unpacker:
    """Carries out one archive's entries below one folder, opened once and never left."""

    def __init__(
        self, root_fd: int, limit_bytes: int, limit_files: int, owner: tuple[int, int] | None
    ) -> None:
        self._root_fd = root_fd
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        self._limit_files = limit_files
        self._owner = owner
        self._named: set[str] = set()
        self._made_count = 0

    def unpack_all(self, tar: tarfile.TarFile) -> None:
        while (info := tar.next()) is not None:
            # tarfile keeps every header it has read; we need none of them again.
            tar.members.clear()  # type: ignore[attr-defined]
            name = _safe_name(info.name)
            if name is None:
                if info.isdir():
                    continue
                raise ArchiveError("the archive has a file without a name.")
            if name in self._named:
                raise ArchiveError(f"the archive has {shown(name)} twice.")
            self._named.add(name)
            self._unpack_one(tar, info, name)

    def _unpack_one(self, tar: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> None:
        base, _, leaf = name.rpartition("/")
        with self._folder(base) as folder_fd:
            if info.isdir():
                self._make_folder(folder_fd, leaf, name, may_exist=True)
            elif info.issym():
                self._make_link(folder_fd, leaf, name, info.linkname)
            elif info.isreg() and not info.issparse():
                self._make_file(tar, info, folder_fd, leaf, name)
            else:
                raise ArchiveError(
                    f"the archive has {shown(name)}, which is neither a file, a folder nor a symbolic link."
                )

    @contextmanager
    def _folder(self, base: str) -> Iterator[int]:
        """The folder `base`, made if it is not there, reached without following any link."""
        folder_fd = os.dup(self._root_fd)
        try:
            path = ""
            for part in base.split("/") if base else ():
                path = f"{path}/{part}" if path else part
                if path not in self._named:
                    self._make_folder(folder_fd, part, path, may_exist=True)
                try:
                    inner_fd = os.open(part, FOLDER_FLAGS, dir_fd=folder_fd)
                except OSError as error:
                    raise ArchiveError(
                        f"the archive puts {shown(base)} below something not a folder."
                    ) from error
                os.close(folder_fd)
                folder_fd = inner_fd
            yield folder_fd
        finally:
            os.close(folder_fd)

    def _make_folder(self, folder_fd: int, leaf: str, name: str, *, may_exist: bool) -> None:
        try:
            os.mkdir(leaf, mode=0o700, dir_fd=folder_fd)
        except FileExistsError:
            status = os.stat(leaf, dir_fd=folder_fd, follow_symlinks=False)
            if may_exist and stat.S_ISDIR(status.st_mode):
                return
            raise ArchiveError(f"the archive has {shown(name)} twice.") from None
        self._count_one()
        with closing_fd(os.open(leaf, FOLDER_FLAGS, dir_fd=folder_fd)) as made_fd:
            os.fchmod(made_fd, FOLDER_MODE)
            if self._owner:
                os.fchown(made_fd, *self._owner)

    def _make_link(self, folder_fd: int, leaf: str, name: str, target: str) -> None:
        if not link_stays_inside(name, target):
            raise ArchiveError(f"the archive has a link {shown(name)} out of its folder, to {shown(target)}.")
        self._count_one()
        try:
            os.symlink(target, leaf, dir_fd=folder_fd)
        except FileExistsError:
            raise ArchiveError(f"the archive has {shown(name)} twice.") from None
        if self._owner:
            os.chown(leaf, *self._owner, dir_fd=folder_fd, follow_symlinks=False)

    def _make_file(
        self, tar: tarfile.TarFile, info: tarfile.TarInfo, folder_fd: int, leaf: str, name: str
    ) -> None:
        self._count_one()
        self._left_bytes -= info.size
        if info.size < 0 or self._left_bytes < 0:
            raise ArchiveError(_too_large(self._limit_bytes))
        contents = tar.extractfile(info)
        assert contents is not None, "a regular file has contents"
        try:
            made_fd = os.open(leaf, _CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        except FileExistsError:
            raise ArchiveError(f"the archive has {shown(name)} twice.") from None
        with os.fdopen(made_fd, "wb") as made:
            shutil.copyfileobj(contents, made, CHUNK_BYTES)
            os.fchmod(made_fd, EXECUTABLE_MODE if info.mode & stat.S_IXUSR else FILE_MODE)
            if self._owner:
                os.fchown(made_fd, *self._owner)

    def _count_one(self) -> None:
        self._made_count += 1
        if self._made_count > self._limit_files:
            raise ArchiveError(
                f"the archive has more than {self._limit_files:,} entries, which is the limit."
            )


def _safe_name(name: str) -> str | None:
    """The name without empty and `.` parts; None for the root itself. Raises `ArchiveError` for one that
    leaves it.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ArchiveError(f"the archive has {shown(name)}, a name that leads out of its folder.")
    if len(parts) > DEPTH_MAX:
        raise ArchiveError(f"the archive has {shown(name)}, more than {DEPTH_MAX} folders deep.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArchiveError(f"the archive has {shown(name)}, a name that is not UTF-8.") from None
    return "/".join(parts) or None


def _too_large(limit_bytes: int) -> str:
    return f"the archive unpacks to more than {human(limit_bytes)}, which is the limit."


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
