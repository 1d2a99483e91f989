"""A part of `perak up` as a process: started, listened to, ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import IO

LINE_BYTES_MAX = 64 * 1024
"""The parts print short lines; more without a line break is thrown away."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Plan:
    """How to start a part: `perak` with these arguments, and its own secrets in the environment."""

    name: str
    arguments: tuple[str, ...]
    secrets: dict[str, str] = field(repr=False)

    def replaced(self, option: str, value: str) -> Plan:
        """The same with another value of an option."""
        at = self.arguments.index(option) + 1
        return replace(self, arguments=(*self.arguments[:at], value, *self.arguments[at + 1 :]))


class Child:
    """One part. Start it from the main thread: it ends with the thread that started it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.given_up = False
        self.restarts_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._rest = b""

    def start(self) -> None:
        """Start the process, in a session of its own, so that a Ctrl-C reaches it only through us."""
        self.restarts_at = None
        self._started_at = time.monotonic()
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perak", *self.plan.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.plan.secrets},
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )

    @property
    def output(self) -> IO[bytes] | None:
        """What it prints, as long as it does."""
        process = self._process
        if process is None or process.stdout is None or process.stdout.closed:
            return None
        return process.stdout

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def wait_for_line(self, beginning: str, seconds: float) -> str | None:
        """The first line with this beginning; None when the process ended, or the time is over."""
        deadline = time.monotonic() + seconds
        while self.output is not None and (left := deadline - time.monotonic()) > 0:
            if select.select([self.output], [], [], left)[0]:
                for line in self.take_output():
                    if line.startswith(beginning):
                        return line
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
        return None

    def take_output(self) -> list[str]:
        """The whole lines that came; call it when there is something to read."""
        assert self.output is not None
        new = os.read(self.output.fileno(), LINE_BYTES_MAX)
        if not new:
            self.output.close()
            return []
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._rest = self._rest[-LINE_BYTES_MAX:]
        return [line.decode(errors="replace") for line in lines]

    def next_wait(self, backoff_seconds: tuple[float, ...], *, stable_seconds: float) -> float:
        """Plan the next start; the seconds until then."""
        now = time.monotonic()
        if now - self._started_at > stable_seconds:
            self._failures = 0
        wait = backoff_seconds[min(self._failures, len(backoff_seconds) - 1)]
        self._failures += 1
        self.restarts_at = now + wait
        return wait

    def stop(self, seconds: float) -> None:
        """Ask it to end, and end it when it has not after `seconds`."""
        process = self._process
        if process is None:
            return
        process.terminate()
        deadline = time.monotonic() + seconds
        # What it still prints has to go somewhere, or it would wait for us.
        while self.output is not None and (left := deadline - time.monotonic()) > 0:
            if select.select([self.output], [], [], left)[0]:
                self.take_output()
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self.output is not None:
            self.output.close()


def _end_with_parent() -> Callable[[], object] | None:
    """Return what makes the child end when we are killed; None where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # Looked up here: the child may not take locks between fork and exec.
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
