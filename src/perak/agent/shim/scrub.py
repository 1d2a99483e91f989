"""Secrets in a stream of bytes, blotted out."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRUBBED_BYTES_MIN = 6  # shorter secrets, such as "true", would blot out ordinary words
SCRUBBED_PIECE_BYTES = 512  # a longer secret is looked for by its pieces, so that little is held back
SCRUBBED_LINES_MAX = 200  # a secret of more lines is looked for as a whole only
SCRUBBED_BASE64_BYTES_MAX = 1024  # of what is also looked for in base64: tokens and passwords
HOLD_SECONDS = 0.5  # how long what may be the beginning of a secret is held back
NEVER = float("inf")


class Scrub:
    """Blots the values of secrets out of a stream: an asterisk for each byte, line feeds stay.

    A value is found however the stream is cut: what may be the beginning of one is held back, at most
    SCRUBBED_PIECE_BYTES - 1, until more comes or `show_at`. What is then shown is remembered: of a value that
    is written slowly at most SCRUBBED_BYTES_MIN - 1 bytes are seen. It is also found in base64, by its lines,
    and by its pieces. A job that wants to show a secret can: by any other spelling.
    """

    def __init__(self, values: list[bytes]) -> None:
        self.patterns = sorted({pattern for value in values for pattern in _patterns(value)})
        self.held = bytearray()
        self.blots = bytearray()  # for each held byte: 1 where it is to be blotted out
        self.shown = 0  # of the held bytes, how many were shown already
        self.show_at = NEVER

    def feed(self, data: bytes) -> bytes:
        """What can be shown now that `data` has come."""
        if not self.patterns:
            return data
        known = len(self.held)
        self.held += data
        self.blots += bytes(len(data))
        for pattern in self.patterns:
            self._blot_out(pattern, known)
        keep = len(self.held) - self._beginning()
        shown = self._blotted(self.shown, keep)
        del self.held[:keep], self.blots[:keep]
        self.shown = max(0, self.shown - keep)
        self.show_at = time.monotonic() + HOLD_SECONDS if len(self.held) > self.shown else NEVER
        return shown

    def show(self) -> bytes:
        """What was held back long enough: a prompt must be seen. Most of a secret is not."""
        held = self._blotted(self.shown, len(self.held))
        self.shown, self.show_at = len(self.held), NEVER
        return held if len(self.held) < SCRUBBED_BYTES_MIN else _asterisks(held)

    def end(self) -> bytes:
        """What is left, as no more will come."""
        rest = self._blotted(self.shown, len(self.held))
        self.held.clear()
        self.blots.clear()
        self.shown, self.show_at = 0, NEVER
        return rest

    def _blot_out(self, pattern: bytes, known: int) -> None:
        """Mark each place where `pattern` ends among the bytes after the first `known`."""
        at = self.held.find(pattern, max(0, known - len(pattern) + 1))
        while at >= 0:
            self.blots[at : at + len(pattern)] = b"\1" * len(pattern)
            at = self.held.find(pattern, at + 1)

    def _beginning(self) -> int:
        """The length of the longest end of what is held that a pattern begins with, without being whole."""
        longest = 0
        for pattern in self.patterns:
            at = max(0, len(self.held) - len(pattern) + 1)
            last = len(self.held) - longest
            while (at := self.held.find(pattern[:1], at, last)) >= 0:
                if pattern.startswith(self.held[at:]):
                    longest = len(self.held) - at
                    break
                at += 1
        return longest

    def _blotted(self, start: int, end: int) -> bytes:
        shown = self.held[start:end]
        at = self.blots.find(1, start, end)
        while at >= 0:
            until = self.blots.find(0, at, end)
            until = end if until < 0 else until
            shown[at - start : until - start] = _asterisks(self.held[at:until])
            at = self.blots.find(1, until, end)
        return bytes(shown)


def _asterisks(data: bytes | bytearray) -> bytes:
    return b"\n".join(b"*" * len(line) for line in data.split(b"\n"))


def _patterns(value: bytes) -> Iterator[bytes]:
    """What a value may look like in a log."""
    value = value.strip(b"\r\n")
    forms = [value]
    lines = value.splitlines()
    if 1 < len(lines) <= SCRUBBED_LINES_MAX:
        forms += [line.strip() for line in lines]
    if len(value) <= SCRUBBED_BASE64_BYTES_MAX:
        forms += _in_base64(value)
    for form in forms:
        if len(form) >= SCRUBBED_BYTES_MIN:
            for at in range(0, max(1, len(form) - SCRUBBED_PIECE_BYTES + 1), SCRUBBED_PIECE_BYTES):
                yield form[at : at + SCRUBBED_PIECE_BYTES]
            yield form[-SCRUBBED_PIECE_BYTES:]


def _in_base64(value: bytes) -> Iterator[bytes]:
    """The characters that are the value's alone, at each of the three places that it may have in more."""
    for before, shared in ((0, 0), (1, 2), (2, 3)):  # bytes before it, and characters that these take part in
        whole = 8 * (before + len(value)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + value)[shared:whole]
