"""Folders that strangers filled, opened part by part and never through a link."""

from __future__ import annotations

import os
import stat

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NAME_BYTES_MAX = 255
"""Of one part of a name, as Linux has it."""
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
"""A file that a layer takes away, and a folder of which it takes all (OCI image specification, layer.md)."""


class Refused(Exception):
    """An archive or an image that is not unpacked; the message goes on after "the layer ... is refused:"."""


def shown(name: str) -> str:
    """A name that a stranger chose, safe to print in a terminal or a log."""
    return repr(name) if name.isprintable() else ascii(name)


def remove_at(folder_fd: int, name: str) -> None:
    """Remove a file, a link or a whole folder; one that isn't there is no error."""
    try:
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=folder_fd)
        return
    inner_fd = os.open(name, FOLDER_FLAGS, dir_fd=folder_fd)
    try:
        for each in os.listdir(inner_fd):
            remove_at(inner_fd, each)
    finally:
        os.close(inner_fd)
    os.rmdir(name, dir_fd=folder_fd)
