"""A full disk under the agent: some room is kept for that day, so that evidence is written all the same.

The state folder holds a file of no use, as large as days of reports. When something of the agent's own does
not fit any more, the file goes, and the agent starts itself anew: its runs live on under their shims, as
after every other death of it. It offers nothing then, and says why, until there is room for the file again.
Should the disk fill up once more, the agent waits for room.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from perak.domain.units import format_bytes

log = logging.getLogger(__name__)

FILE_NAME = "room"
RESERVE_BYTES = 32 * 2**20
"""A report has about 1 kB: a week of evidence of one run, once a minute, and the records of many runs."""
LEAST_BYTES = 2**20
"""Without the reserve, an agent begins again only with so much free; a start writes some 100 kB."""
LOOK_SECONDS = 1.0
ROOM_VARIABLE = "PERAK_AGENT_ROOM_BYTES"
"""How much of the disk is kept for the day when it is full; tests have small disks."""


@dataclass(frozen=True, slots=True)
class Room:
    """The room that is kept in one state folder."""

    folder: Path
    reserve_bytes: int = RESERVE_BYTES
    look_seconds: float = LOOK_SECONDS

    @classmethod
    def of(cls, state_dir: Path) -> Self:
        """An agent's own."""
        return cls(state_dir, int(os.environ.get(ROOM_VARIABLE, RESERVE_BYTES)))

    def keep(self) -> str | None:
        """Keep the room, if it is there; None, or why there is none.

        Twice the reserve has to be free, so that a disk at the brink does not make the offer flap.
        """
        path = self.folder / FILE_NAME
        if path.exists():
            return None
        free = self._free_bytes()
        if free < 2 * self.reserve_bytes:
            return (
                f"the disk of {self.folder} is full: {format_bytes(free)} are free, and "
                f"{format_bytes(2 * self.reserve_bytes)} are needed; make room, and it goes on"
            )
        draft = path.with_name(f".{FILE_NAME}")
        try:
            with draft.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.reserve_bytes)
        except OSError as error:
            draft.unlink(missing_ok=True)
            return f"the disk of {self.folder} can't be written to: {error.strerror}"
        draft.rename(path)
        return None

    def spend(self) -> bool:
        """Give up the room that was kept; whether there was any."""
        try:
            (self.folder / FILE_NAME).unlink()
        except FileNotFoundError:
            return False
        return True

    def wait(self) -> None:
        """Until a little is free."""
        while self._free_bytes() < LEAST_BYTES:
            time.sleep(self.look_seconds)

    def _free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk is full, the cause of it included."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return error.__cause__ is not None and is_full(error.__cause__)


def go_on_when_there_is_room(room: Room, start_anew: Callable[[], None]) -> None:
    """Make or await room, then start anew; what is under way in threads ends with this process."""
    if room.spend():
        log.error("the disk of %s is full; the room that was kept for this is used, and the agent goes on "
                  "without offering anything: make room", room.folder)  # fmt: skip
    else:
        log.error("the disk of %s is full again; the runs live on, and the agent waits for room", room.folder)
        room.wait()
        log.warning("there is room on the disk of %s again", room.folder)
    start_anew()
