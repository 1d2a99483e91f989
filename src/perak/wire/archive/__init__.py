"""The format in which work folders and outputs travel: a deterministic, gzip-compressed tar.

Both ends distrust what they read. A work folder is packed on the renter's machine and unpacked by a node's
agent, which may be root; outputs are packed by that agent from a folder that a stranger's job wrote, and
unpacked on the renter's machine. So neither direction follows a symbolic link, and every size and count has a
limit.

Rules of the format: regular files, folders and symbolic links only; names are relative UTF-8 paths, each at
most once; modes are 0644, 0755 for what its owner may execute and for folders; owners and times are zero. The
same tree gives the same digest wherever the same zlib compresses it.
"""

from perak.wire.archive.outputs import pack_outputs
from perak.wire.archive.shared import (
    OUTPUTS_BYTES_MAX,
    OUTPUTS_FILES_MAX,
    WORKDIR_BYTES_MAX,
    WORKDIR_FILES_MAX,
    ArchiveError,
    NothingPacked,
    Packed,
)
from perak.wire.archive.unpacking import unpack
from perak.wire.archive.workdir import pack_workdir

__all__ = [
    "OUTPUTS_BYTES_MAX",
    "OUTPUTS_FILES_MAX",
    "WORKDIR_BYTES_MAX",
    "WORKDIR_FILES_MAX",
    "ArchiveError",
    "NothingPacked",
    "Packed",
    "pack_outputs",
    "pack_workdir",
    "unpack",
]
