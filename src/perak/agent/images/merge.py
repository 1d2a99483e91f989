"""One root of an image's layers: their files by hard links, what upper layers take away left out.

Runs inside the confined process of `perak.agent.images.unpacker`. Files are never copied where a link can be
made, so ten images on one base take its space once.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Any

from perak.agent.images.trees import (
    CREATE_FLAGS,
    FOLDER_FLAGS,
    OPAQUE,
    WHITEOUT,
    Refused,
    remove_at,
    shown,
)

DEFAULT_ID = 1000
MOUNT_FOLDERS = ("proc", "dev", "sys", "tmp", "run", "etc", "var", "var/tmp", "work", "job")
MOUNT_FILES = ("etc/hosts", "etc/resolv.conf")
"""What every sandbox mounts something on; the root is read-only by then."""
ACCOUNTS_BYTES_MAX = 256 * 1024
LINKS_FOLLOWED_MAX = 40
"""As the kernel does (path_resolution(7))."""
COPY_BYTES = 1024 * 1024


def merge(layers: list[str], target: str, *, user: str, working_dir: str, limit_files: int) -> dict[str, Any]:
    """Fill the empty folder `target` from `layers`, the lowest first. -> whom to run as, and the home."""
    root_fd = os.open(target, FOLDER_FLAGS)
    merger = _Merger(root_fd, limit_files)
    for layer in layers:
        layer_fd = os.open(f"{layer}/tree", FOLDER_FLAGS)
        merger.add(layer_fd, root_fd, "", _implicit(layer))
        os.close(layer_fd)
    for path in MOUNT_FOLDERS:
        _require_folder(root_fd, path)
    for path in MOUNT_FILES:
        _require_file(root_fd, path)
    account = _account(root_fd, user)
    _add_account(root_fd, account)
    if working_dir:
        with_parts = [part for part in working_dir.split("/") if part not in ("", ".", "..")]
        _make_inside(root_fd, "/".join(with_parts))
    return {"uid": account.uid, "gid": account.gid, "files": merger.made_files}


def _implicit(layer: str) -> frozenset[str]:
    """The folders that the layer only passes through: there a link of a lower layer is followed."""
    with open(f"{layer}/implicit") as file:
        return frozenset(line for line in file.read().split("\0") if line)


class _Merger:
    def __init__(self, root_fd: int, limit_files: int) -> None:
        self._root_fd = root_fd
        self._limit_files = limit_files
        self.made_files = 0

    def add(self, source_fd: int, target_fd: int, path: str, implicit: frozenset[str]) -> None:
        """Put what a layer's folder has into the same folder of the root."""
        names = os.listdir(source_fd)
        if OPAQUE in names:
            for name in os.listdir(target_fd):
                remove_at(target_fd, name)
        for name in names:
            if name.startswith(WHITEOUT) and name != OPAQUE:
                hidden = name.removeprefix(WHITEOUT)
                if hidden in ("", ".", ".."):
                    raise Refused(f"a layer takes away {shown(hidden)}, which is no name")
                remove_at(target_fd, hidden)
        for name in names:
            if not name.startswith(WHITEOUT):
                self._add_one(source_fd, target_fd, name, f"{path}{name}", implicit)

    def _add_one(
        self, source_fd: int, target_fd: int, name: str, path: str, implicit: frozenset[str]
    ) -> None:
        self.made_files += 1
        if self.made_files > self._limit_files:
            raise Refused(f"its layers have more than {self._limit_files:,} files, which is the limit here")
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner_fd = os.open(name, FOLDER_FLAGS, dir_fd=source_fd)
            into_fd = self._folder(target_fd, name, path, follow=path in implicit)
            self.add(inner_fd, into_fd, f"{path}/", implicit)
            os.close(inner_fd)
            os.close(into_fd)
            return
        remove_at(target_fd, name)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        elif stat.S_ISREG(status.st_mode):
            _link_or_copy(source_fd, target_fd, name)

    def _folder(self, target_fd: int, name: str, path: str, *, follow: bool) -> int:
        try:
            os.mkdir(name, 0o755, dir_fd=target_fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=target_fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode) and follow:
                return open_inside(self._root_fd, path)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=target_fd)
                os.mkdir(name, 0o755, dir_fd=target_fd)
        return os.open(name, FOLDER_FLAGS, dir_fd=target_fd)


def open_inside(root_fd: int, path: str) -> int:
    """The folder at `path`, links followed as in a chroot: none leads above the root. Made where missing."""
    left = [part for part in path.split("/") if part not in ("", ".")][::-1]
    opened = [os.dup(root_fd)]
    followed = 0
    try:
        while left:
            part = left.pop()
            if part == "..":
                if len(opened) > 1:
                    os.close(opened.pop())
                continue
            try:
                opened.append(os.open(part, FOLDER_FLAGS, dir_fd=opened[-1]))
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=opened[-1])
                opened.append(os.open(part, FOLDER_FLAGS, dir_fd=opened[-1]))
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                link = _link_at(opened[-1], part)
                followed += 1
                if link is None or followed > LINKS_FOLLOWED_MAX:
                    raise Refused(f"{shown(path)} leads through what is no folder") from None
                if link.startswith("/"):
                    while len(opened) > 1:
                        os.close(opened.pop())
                left += [each for each in link.split("/") if each not in ("", ".")][::-1]
        return os.dup(opened[-1])
    finally:
        for each in opened:
            os.close(each)


def _link_at(folder_fd: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder_fd)
    except OSError:
        return None


def _make_inside(root_fd: int, path: str) -> None:
    os.close(open_inside(root_fd, path))


def _link_or_copy(source_fd: int, target_fd: int, name: str) -> None:
    try:
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        return
    except OSError as error:
        # A file system without hard links, or with no room for one more of this file (ext4 has 65,000).
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    made = os.open(name, CREATE_FLAGS, 0o600, dir_fd=target_fd)
    try:
        while chunk := os.read(source, COPY_BYTES):
            os.write(made, chunk)
        os.fchmod(made, os.fstat(source).st_mode & 0o555)
    finally:
        os.close(source)
        os.close(made)


def _require_folder(root_fd: int, path: str) -> None:
    """A real folder at `path`; a link or a file there gives way."""
    base, _, name = path.rpartition("/")
    folder_fd = os.open(base or ".", FOLDER_FLAGS, dir_fd=root_fd)
    try:
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder_fd)
            os.mkdir(name, 0o755, dir_fd=folder_fd)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)


def _require_file(root_fd: int, path: str) -> None:
    """A plain file at `path`; a link there, as to a resolver's own file in /run, gives way."""
    base, _, name = path.rpartition("/")
    folder_fd = os.open(base, FOLDER_FLAGS, dir_fd=root_fd)
    try:
        if not _is_file(folder_fd, name):
            remove_at(folder_fd, name)
            os.close(os.open(name, CREATE_FLAGS, 0o444, dir_fd=folder_fd))
    finally:
        os.close(folder_fd)


@dataclass(frozen=True, slots=True)
class _Account:
    uid: int
    gid: int


def _account(root_fd: int, user: str) -> _Account:
    """Whom ``user[:group]`` means, by name or number (OCI image specification, config.md)."""
    name, _, group = user.partition(":")
    if not name:
        return _Account(DEFAULT_ID, DEFAULT_ID)
    known = [line for line in _lines(root_fd, "passwd") if len(line) >= 4]
    found = next((line for line in known if line[0] == name), None) or next(
        (line for line in known if line[2] == name), None
    )
    uid = _number(found[2] if found else name, f"the image's user {shown(name)}")
    gid = _number(found[3], f"the group of {shown(name)}") if found else 0
    if group:
        groups = [line for line in _lines(root_fd, "group") if len(line) >= 3]
        named = next((line for line in groups if line[0] == group), None)
        gid = _number(named[2] if named else group, f"the image's group {shown(group)}")
    return _Account(uid, gid)


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise Refused(f"{what} is in no list of its users, and is no number")
    return int(text)


def _add_account(root_fd: int, account: _Account) -> None:
    """Programs ask who they are: the run's user has a line, and everyone a file to be looked up in."""
    for file, line in (
        ("passwd", f"perak:x:{account.uid}:{account.gid}:job:/work:/bin/sh"),
        ("group", f"perak:x:{account.gid}:"),
    ):
        lines = _lines(root_fd, file)
        number = account.uid if file == "passwd" else account.gid
        if not any(len(each) > 2 and each[2] == str(number) for each in lines):
            lines.append(line.split(":"))
        etc_fd = os.open("etc", FOLDER_FLAGS, dir_fd=root_fd)
        remove_at(etc_fd, file)
        made = os.open(file, CREATE_FLAGS, 0o444, dir_fd=etc_fd)
        os.close(etc_fd)
        with os.fdopen(made, "w", encoding="utf-8", errors="surrogateescape") as out:
            out.write("".join(":".join(each) + "\n" for each in lines))


def _lines(root_fd: int, name: str) -> list[list[str]]:
    etc_fd = os.open("etc", FOLDER_FLAGS, dir_fd=root_fd)
    try:
        if not _is_file(etc_fd, name):
            return []
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=etc_fd)
    finally:
        os.close(etc_fd)
    with os.fdopen(file, "rb") as opened:
        text = opened.read(ACCOUNTS_BYTES_MAX).decode("utf-8", "surrogateescape")
    return [line.split(":") for line in text.splitlines() if line]


def _is_file(folder_fd: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
