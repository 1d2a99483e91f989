"""Tells the agent that a run has news."""

from __future__ import annotations

import contextlib
import os
import socket
import time

POKE_SECONDS = 0.01  # the agent is told of news at most this often
NEVER = float("inf")


class Poke:
    """Tells the agent that there is something new, at most once in POKE_SECONDS; nobody need listen."""

    def __init__(self, folder: str, run_id: str) -> None:
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        self.address = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}/poke.sock"
        self.message = run_id.encode()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.last = 0.0
        self.at = NEVER

    def due(self) -> None:
        """Something is new: say so at once, or as soon as it is allowed again."""
        self.at = min(self.at, max(time.monotonic(), self.last + POKE_SECONDS))
        self.send_if_due()

    def send_if_due(self) -> None:
        """Send what is due by now."""
        if time.monotonic() >= self.at:
            self.send()

    def send(self) -> None:
        """Send now."""
        self.at, self.last = NEVER, time.monotonic()
        with contextlib.suppress(OSError):
            self.socket.sendto(self.message, self.address)
