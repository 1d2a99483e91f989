"""A run's log file: what the job writes, scrubbed, at its rate and up to its limit."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from perak.agent.shim.scrub import Scrub

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch
    from perak.agent.shim.poke import Poke
    from perak.agent.shim.secret_files import Secrets

READ_BYTES = 256 * 1024  # one read of the job's output
LAST_WORDS_BYTES = 400  # of the sandbox's own last words
PAUSE_SECONDS = 0.05  # how long the log's pipe is left alone at the least when a run writes too fast
ROOM_LOOK_SECONDS = 0.5  # how often a shim looks whether the node's full disk has room again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Log:
    """The file, and what is on its way into it: held back by the scrub, or by the node's full disk."""

    def __init__(self, folder: str, plan: Launch, secrets: Secrets, poke: Poke) -> None:
        self.file = os.open(
            os.path.join(folder, "log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self.scrub = Scrub([value for _, value in secrets.values()])
        self.poke = poke
        self.bytes_max = self.room = plan["log_bytes_max"]
        self.cut = False
        self.rate = Rate(plan["log_bytes_per_second"], plan["log_burst_bytes"])
        self.last_words = b""
        self.unwritten = bytearray()  # while the node's disk is full

    def take(self, source: int) -> int | None:
        """Take some of the job's output; returns the pipe, or None once it is closed."""
        data = os.read(source, READ_BYTES)
        if not data:
            os.close(source)
            return None
        self.rate.take(len(data))
        self._show(self.scrub.feed(data))
        return source

    def pause_seconds(self) -> float:
        """How long to leave the pipe alone, and the job waiting: it is too fast, or there is no room."""
        if self.unwritten:
            self._write(b"")
        return ROOM_LOOK_SECONDS if self.unwritten else self.rate.pause_seconds()

    def show_due(self) -> None:
        """Show what the scrub held back long enough, at `scrub.show_at`."""
        if time.monotonic() >= self.scrub.show_at:
            self._show(self.scrub.show())

    def end_stage(self) -> None:
        """Nothing more comes of this stage: show all that was held back."""
        self._show(self.scrub.end())

    def close(self) -> int:
        """Have it on disk, however long that waits for room; its size."""
        while self.unwritten:
            time.sleep(ROOM_LOOK_SECONDS)
            self._write(b"")
        os.fsync(self.file)
        return os.fstat(self.file).st_size

    def _show(self, data: bytes) -> None:
        """Append up to the log's limit."""
        self.last_words = (self.last_words + data)[-LAST_WORDS_BYTES:]
        kept = data[: self.room]
        self._write(kept)
        self.room -= len(kept)
        if len(kept) < len(data) and not self.cut:
            self.cut = True
            said = f"\n[perak] the log ends here: its limit of {self.bytes_max} bytes is reached\n"
            self._write(said.encode())

    def _write(self, data: bytes) -> None:
        self.unwritten += data
        while self.unwritten:
            try:
                del self.unwritten[: os.write(self.file, self.unwritten)]
            except OSError as error:
                # The node's own disk is full: what the job writes waits in its pipe, and the job with it.
                if error.errno not in NO_ROOM:
                    self.cut, self.room = True, 0
                    self.unwritten.clear()
                return
            self.poke.due()


class Rate:
    """A token bucket: `burst` bytes at once, `per_second` in the long run."""

    def __init__(self, per_second: int, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self.room = float(burst)
        self.at = time.monotonic()

    def take(self, amount: int) -> None:
        """Note what was taken; a read may overdraw the bucket by its own size."""
        now = time.monotonic()
        self.room = min(self.burst, self.room + (now - self.at) * self.per_second) - amount
        self.at = now

    def pause_seconds(self) -> float:
        """How long to take nothing."""
        missing = -self.room - (time.monotonic() - self.at) * self.per_second
        return max(PAUSE_SECONDS, missing / self.per_second) if missing > 0 else 0.0
