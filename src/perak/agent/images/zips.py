"""A zip archive's entries in tarfile's words, so that one unpacker judges both kinds of archive."""

from __future__ import annotations

import encodings.cp437  # noqa: F401 - names are read in it, when no module can be loaded any more
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, BinaryIO

from perak.agent.images.trees import NAME_BYTES_MAX, Refused

MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""Of an archive's first entry, and of one that has none (APPNOTE.TXT 4.3.7, 4.3.16)."""
UNIX = 3
"""The system whose file modes stand in an entry's attributes (4.4.2.2)."""
ENCRYPTED = 0x1


class ZipEntries:
    """What the unpacker needs of `tarfile.TarFile`. Raises Refused for what can't or must not be unpacked.

    Its table of contents is at its end, so sizes are known before anything is written: `bytes_max` is for all
    files together, and zipfile gives no more of one than the table says.
    """

    def __init__(self, stream: BinaryIO, *, bytes_max: int, files_max: int, why: str) -> None:
        self.members: list[tarfile.TarInfo] = []
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise Refused(f"it is damaged: {error}") from None
        entries = self._zip.infolist()
        if len(entries) > files_max:
            raise Refused(f"it has more than {files_max:,} files, which is the limit here")
        if sum(each.file_size for each in entries) > bytes_max:
            raise Refused(why)
        self._entries = iter(entries)
        self._found: dict[int, zipfile.ZipInfo] = {}

    def next(self) -> tarfile.TarInfo | None:
        """The next entry, None at the end."""
        return next(self._infos(), None)

    def extractfile(self, info: tarfile.TarInfo) -> IO[bytes] | None:
        """Its content."""
        return self._open(self._found[id(info)])

    def _infos(self) -> Iterator[tarfile.TarInfo]:
        for entry in self._entries:
            info = tarfile.TarInfo(entry.filename)
            mode = entry.external_attr >> 16 if entry.create_system == UNIX else 0
            info.mode = stat.S_IMODE(mode)
            kind = stat.S_IFMT(mode)
            if entry.is_dir():
                info.type = tarfile.DIRTYPE
            elif kind == stat.S_IFLNK:
                info.type, info.linkname = tarfile.SYMTYPE, self._target(entry)
            elif kind in (0, stat.S_IFREG):
                info.type, info.size = tarfile.REGTYPE, entry.file_size
            else:
                info.type = tarfile.FIFOTYPE  # or a device: left out, as from a tar archive
            self._found = {id(info): entry}
            yield info

    def _target(self, entry: zipfile.ZipInfo) -> str:
        if entry.file_size > NAME_BYTES_MAX:
            return ""  # which is refused, as a link to nowhere
        with self._open(entry) as content:
            return content.read(NAME_BYTES_MAX).decode("utf-8", "surrogateescape")

    def _open(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        if entry.flag_bits & ENCRYPTED:
            raise Refused("it is encrypted with a password, which nobody can give it here")
        try:
            return self._zip.open(entry)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise Refused(f"it is damaged, or packed in a way that is not known here: {error}") from None
