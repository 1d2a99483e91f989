"""How far a long download is, for the job's log: a line now and then, and none for what is quick."""

from __future__ import annotations

import time
from collections.abc import Callable

from perak.domain.units import format_bytes

LINE_SECONDS = 5.0
"""Between two lines: a log is read by people, and is paid for."""


class Teller:
    """Tells of one download, or of several after another. For one thread."""

    def __init__(
        self,
        say: Callable[[str], None],
        what: str,
        whole_bytes: int | None,
        *,
        every_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._what = what
        self._whole = whole_bytes
        self._every = every_seconds
        self._clock = clock
        self._before = 0
        self._last = clock()

    def now(self, size_bytes: int) -> None:
        """So much of the present download is there."""
        if self._clock() - self._last < self._every:
            return
        self._last = self._clock()
        there = format_bytes(self._before + size_bytes)
        self._say(f"{self._what}: {there}" + (f" of {format_bytes(self._whole)}" if self._whole else ""))

    def done(self, size_bytes: int) -> None:
        """The present download is complete, with so many bytes; the next begins."""
        self._before += size_bytes
