"""A process of its own that unpacks one layer, or merges layers: confined before it reads a stranger's byte.

Run as ``python -I -m perak.agent.images.unpacker REQUEST`` with the packed layer on its standard input; it
answers with one line of JSON. All modules are loaded first, because afterwards it can open nothing but what
lies in the one folder that it works in:

1. its root directory is that folder (chroot; without root inside a user namespace of its own);
2. it is the unpacking user, without groups, privileges, a way to new ones, or a network;
3. its memory, open files and file sizes are limited, and it dies with the agent.

So a mistake below can harm that folder and nothing else. The code below does not rely on that: it follows no
link, and opens every name from a folder that is open already.
"""

from __future__ import annotations

import ctypes
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import resource
import signal
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Self, cast

from perak.agent.images.merge import merge
from perak.agent.images.trees import CREATE_FLAGS, FOLDER_FLAGS, NAME_BYTES_MAX, WHITEOUT, Refused, shown
from perak.agent.images.zips import MAGIC, ZipEntries

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 1024 * 1024
ARCHIVE_BYTES = 64 * 1024
"""Of the archive at once: tarfile copies what is left of it for each header."""
HEADER_BYTES_MAX = 1024 * 1024
"""Extended headers (long names, attributes) are read into memory whole."""
ENTRY_OVERHEAD_BYTES = 4096
"""What an entry may take of the archive besides its content: headers and padding."""
DEPTH_MAX = 128
RATIO_MAX = 200
"""Real layers come to 2 to 10; a file of zeros packed by gzip to 1,030, by zstd to 30,000."""
RATIO_FREE_BYTES = 64 * 2**20
"""Small layers may be as empty as they like."""
WINDOW_LOG_MAX = 27
"""128 MiB, what zstd itself takes without being asked for more (`zstd --long`)."""
MEMORY_BYTES_MAX = 2 * 2**30
OPEN_FILES_MAX = 1024
FOLDERS_OPEN_MAX = 512
"""Entries of a folder mostly follow each other; to open it anew for each took most of the time."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x20000, 0x10000000, 0x40000000, 0x8000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do what the request says; the answer is ``{"ok": ...}`` or ``{"error": ...}``."""
    request = json.loads(sys.argv[1])
    try:
        confine(request["root"], uid=request["uid"], file_bytes_max=request["limit_bytes"])
        done = _merge(request) if request["action"] == "merge" else _unpack(request, sys.stdin.buffer)
        answer: dict[str, Any] = {"ok": done}
    except Refused as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "it takes more memory to unpack than is allowed"}
    except OSError as error:
        answer = {"error": f"it could not be unpacked: {error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")


def confine(root: str, *, uid: int | None, file_bytes_max: int) -> None:
    """Make `root` all that this process can reach. `uid` None: it is not root and stays who it is."""
    os.umask(0o022)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if uid is None:
        assert os.getuid() != 0, "as root, a user to unpack as must be named"
        _own_namespace()
    else:
        _libc.unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS)  # where it may not, there is still the rest
    try:
        os.chroot(root)
        os.chdir("/")
    except PermissionError:
        # No user namespaces here. We are nobody in particular, and follow no links.
        os.chdir(root)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, file_bytes_max + CHUNK_BYTES),
    ):
        hard = resource.getrlimit(limit)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # Changing user takes the wish to die with the parent away.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert os.getuid() != 0


def _own_namespace() -> None:
    """A user namespace, in which an ordinary user may change its root directory."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
        return
    with suppress(OSError), open("/proc/self/setgroups", "w") as file:
        file.write("deny")
    for name, own in (("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(f"{own} {own} 1")


def _merge(request: dict[str, Any]) -> dict[str, Any]:
    return merge(
        [f"layers/{layer}" for layer in request["layers"]],
        request["target"],
        user=request["user"],
        working_dir=request["working_dir"],
        limit_files=request["limit_files"],
    )


def _unpack(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    if request["plain"] and stream.seekable():
        is_zip = stream.read(4) in MAGIC
        stream.seek(0)
        if is_zip:
            return _unzip(request, stream)
    source = _Bounded(
        _decompressed(stream),
        packed_bytes=request["packed_bytes"],
        limit_bytes=request["limit_bytes"],
        limit_files=request["limit_files"],
    )
    root_fd = os.open(request["target"], FOLDER_FLAGS)
    unpacker = _Unpacker(root_fd, request["limit_bytes"], request["limit_files"], plain=request["plain"])
    try:
        # Not strict about UTF-8: file systems are not either, and the name comes back as it was.
        with tarfile.open(
            fileobj=source,
            mode="r|",
            bufsize=ARCHIVE_BYTES,
            tarinfo=_BoundedTarInfo,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            unpacker.unpack_all(tar)
        source.drain()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
        raise Refused(f"it is damaged: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise Refused(f"it is no valid archive: {error}") from None
    diff_id = f"sha256:{source.hashed.hexdigest()}"
    if request["diff_id"] is not None and diff_id != request["diff_id"]:
        raise Refused(f"its content has the digest {diff_id}, and the image says {request['diff_id']}")
    return unpacker.made()


def _unzip(request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """A zip archive of data, under the same rules."""
    limit_bytes, limit_files = request["limit_bytes"], request["limit_files"]
    by_ratio = RATIO_FREE_BYTES + request["packed_bytes"] * RATIO_MAX
    why = (
        f"it unpacks to more than {RATIO_MAX} times its packed size, like a bomb"
        if by_ratio < limit_bytes
        else f"it unpacks to more than {limit_bytes:,} bytes, which is the limit here"
    )
    root_fd = os.open(request["target"], FOLDER_FLAGS)
    unpacker = _Unpacker(root_fd, limit_bytes, limit_files, plain=True)
    try:
        most = min(by_ratio, limit_bytes)
        unpacker.unpack_all(ZipEntries(stream, bytes_max=most, files_max=limit_files, why=why))
    except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"it is damaged: {error}") from None
    except (ValueError, RuntimeError, OverflowError) as error:
        raise Refused(f"it is no valid archive: {error}") from None
    return unpacker.made()


def _decompressed(stream: BinaryIO) -> BinaryIO:
    """By what the bytes are and not by what a manifest calls them."""
    buffered = io.BufferedReader(cast(io.RawIOBase, stream), CHUNK_BYTES)
    magic = buffered.peek(4)[:4]
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=buffered, mode="rb"))
    if magic == b"\x28\xb5\x2f\xfd":
        limits = {int(zstd.DecompressionParameter.window_log_max): WINDOW_LOG_MAX}
        return cast(BinaryIO, zstd.ZstdFile(buffered, options=limits))
    return buffered


class _Bounded(io.RawIOBase):
    """Stops before a small archive becomes a large one, and takes the digest of what passes."""

    def __init__(self, stream: BinaryIO, *, packed_bytes: int, limit_bytes: int, limit_files: int) -> None:
        self.hashed = hashlib.sha256()
        self._stream = stream
        self._read = 0
        self._by_size = limit_bytes + (limit_files + 16) * ENTRY_OVERHEAD_BYTES
        self._by_ratio = RATIO_FREE_BYTES + packed_bytes * RATIO_MAX
        self._limit_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "a bounded source is read in bounded pieces"
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._by_ratio:
            raise Refused(f"it unpacks to more than {RATIO_MAX} times its packed size, like a bomb")
        if self._read > self._by_size:
            raise Refused(f"it unpacks to more than {self._limit_bytes:,} bytes, which is the limit here")
        self.hashed.update(data)
        return data

    def drain(self) -> None:
        while self.read(CHUNK_BYTES):
            pass


class _BoundedTarInfo(tarfile.TarInfo):
    """A header checked before tarfile acts on it: it reads extended headers into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
        if info.size < 0 or (info.type not in plain and info.size > HEADER_BYTES_MAX):
            raise Refused(f"it has a header of {info.size:,} bytes")
        return info


class _Unpacker:
    """Carries out one archive's entries below one folder. `plain`: an archive of data, not a layer."""

    def __init__(self, root_fd: int, limit_bytes: int, limit_files: int, *, plain: bool) -> None:
        self._root_fd = root_fd
        self._limit_bytes = limit_bytes
        self._limit_files = limit_files
        self._plain = plain
        self.made_bytes = 0
        self.made_files = 0
        self.left_out = 0
        self.privileged = 0
        self.implicit: set[str] = set()
        self._open: dict[str, int] = {}

    def made(self) -> dict[str, Any]:
        """What there is now, and what was left out."""
        return {
            "bytes": self.made_bytes,
            "files": self.made_files,
            "left_out": self.left_out,
            "privileged": self.privileged,
            "implicit": sorted(self.implicit),
        }

    def unpack_all(self, tar: tarfile.TarFile | ZipEntries) -> None:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[union-attr]  # tarfile keeps every header it has read
            parts = _parts(info.name)
            if not parts:
                if info.isdir():
                    continue
                raise Refused("it has a file without a name")
            self._unpack_one(tar, info, self._folder(parts[:-1]), parts)

    def _unpack_one(
        self, tar: tarfile.TarFile | ZipEntries, info: tarfile.TarInfo, folder_fd: int, parts: list[str]
    ) -> None:
        name = parts[-1]
        self.made_files += 1
        if self.made_files > self._limit_files:
            raise Refused(f"it has more than {self._limit_files:,} files, which is the limit here")
        if info.isdir():
            self._make_folder(folder_fd, parts)
            self.implicit.discard("/".join(parts))
            return
        if info.ischr() or info.isblk() or info.isfifo():
            self.left_out += 1
            return
        if info.isreg() and not info.issparse():
            self._make_file(tar, info, folder_fd, parts)
            return
        self._make_way(folder_fd, parts)
        if info.issym():
            if not info.linkname or len(os.fsencode(info.linkname)) > NAME_BYTES_MAX:
                raise Refused(f"it has a link {shown(name)} to nowhere")
            os.symlink(info.linkname, name, dir_fd=folder_fd)
        elif info.islnk():
            self._link(info, folder_fd, parts)
        else:
            raise Refused(f"it has {shown('/'.join(parts))}, of a kind that is not known here")

    def _folder(self, parts: list[str]) -> int:
        """The folder, made if it is not there, reached without following any link.

        Those of late stay open: a folder never gives way to anything, so none becomes another meanwhile.
        """
        path = "/".join(parts)
        if not path:
            return self._root_fd
        if (known := self._open.pop(path, None)) is None:
            known = self._open_folder(self._folder(parts[:-1]), parts)
            while len(self._open) >= FOLDERS_OPEN_MAX:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = known  # the latest is the last to be closed
        return known

    def _open_folder(self, above_fd: int, parts: list[str]) -> int:
        try:
            return os.open(parts[-1], FOLDER_FLAGS, dir_fd=above_fd)
        except FileNotFoundError:
            self._make_folder(above_fd, parts)
            self.implicit.add("/".join(parts))
            return os.open(parts[-1], FOLDER_FLAGS, dir_fd=above_fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            where = shown("/".join(parts))
            raise Refused(f"it puts files below {where}, which is a link or no folder") from None

    def _make_folder(self, folder_fd: int, parts: list[str]) -> None:
        try:
            os.mkdir(parts[-1], mode=0o755, dir_fd=folder_fd)
        except FileExistsError:
            status = os.stat(parts[-1], dir_fd=folder_fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise Refused(f"it has {shown('/'.join(parts))} twice, once as a folder") from None

    def _make_way(self, folder_fd: int, parts: list[str]) -> None:
        """A later entry of a name takes the place of an earlier one, unless that is a folder."""
        try:
            os.unlink(parts[-1], dir_fd=folder_fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise Refused(f"it has {shown('/'.join(parts))} twice, once as a folder") from None

    def _link(self, info: tarfile.TarInfo, folder_fd: int, parts: list[str]) -> None:
        target = _parts(info.linkname)
        path = shown("/".join(parts))
        if not target:
            raise Refused(f"it has a hard link {path} to nowhere")
        try:
            with self._existing(target[:-1]) as target_fd:
                status = os.stat(target[-1], dir_fd=target_fd, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise Refused(f"it has a hard link {path} to what is no file")
                os.link(
                    target[-1], parts[-1], src_dir_fd=target_fd, dst_dir_fd=folder_fd, follow_symlinks=False
                )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            where = shown(info.linkname)
            raise Refused(f"it has a hard link {path} to {where}, which is no file of it") from None

    @contextmanager
    def _existing(self, parts: list[str]) -> Iterator[int]:
        folder_fd = os.dup(self._root_fd)
        try:
            for part in parts:
                inner_fd = os.open(part, FOLDER_FLAGS, dir_fd=folder_fd)
                os.close(folder_fd)
                folder_fd = inner_fd
            yield folder_fd
        finally:
            os.close(folder_fd)

    def _make_file(
        self, tar: tarfile.TarFile | ZipEntries, info: tarfile.TarInfo, folder_fd: int, parts: list[str]
    ) -> None:
        self.made_bytes += info.size
        if self.made_bytes > self._limit_bytes:
            raise Refused(f"it unpacks to more than {self._limit_bytes:,} bytes, which is the limit here")
        contents = tar.extractfile(info)
        assert contents is not None, "a regular file has contents"
        if info.mode & (stat.S_ISUID | stat.S_ISGID):
            self.privileged += 1
        left = info.size
        try:
            made_fd = os.open(parts[-1], CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        except FileExistsError:
            self._make_way(folder_fd, parts)
            made_fd = os.open(parts[-1], CREATE_FLAGS, 0o600, dir_fd=folder_fd)
        with os.fdopen(made_fd, "wb", buffering=0) as made:
            while left and (chunk := contents.read(min(CHUNK_BYTES, left))):
                made.write(chunk)
                left -= len(chunk)
            # Readable for every run, whoever it is inside; setuid, setgid and write permission go.
            os.fchmod(made.fileno(), 0o555 if info.mode & 0o111 else 0o444)
        if left:
            raise Refused("it is damaged: it ends in the middle of a file")


def _parts(name: str) -> list[str]:
    """The parts of a name below the root, however it is written; Refused for one that climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Refused(f"it has {shown(name)}, a name that leads out of its folder")
    if len(parts) > DEPTH_MAX:
        raise Refused(f"it has {shown(name)}, more than {DEPTH_MAX} folders deep")
    if any(len(os.fsencode(part)) > NAME_BYTES_MAX for part in parts):
        raise Refused(f"it has {shown(name[:100])}..., a name that is too long")
    return parts


assert WHITEOUT, "layers keep their whiteouts as files until they are merged"

if __name__ == "__main__":
    main()
