"""Starts the gate when a tunnel is asked for, and hands the orders on to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perak.wire.session import Dial

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Keeper:
    """The agent's side of its gate. A gate that is gone is started anew; the exchange repeats its orders."""

    state_dir: Path
    url: str
    log_level: str = "info"
    log_file: Path | None = None
    """The agent's; the gate has one beside it. None: it logs to stderr alone."""
    _gate: asyncio.subprocess.Process | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def dial(self, dial: Dial) -> None:
        """Hand on an order; one that is lost comes again."""
        async with self._lock:
            if self._gate is None or self._gate.returncode is not None:
                self._gate = await self._start()
            assert self._gate.stdin is not None
            with contextlib.suppress(OSError):
                self._gate.stdin.write(msgspec.json.encode(dial) + b"\n")
                await self._gate.stdin.drain()

    async def close(self) -> None:
        """End the gate, and with it every tunnel."""
        gate, self._gate = self._gate, None
        if gate is None or gate.returncode is not None:
            return
        assert gate.stdin is not None
        gate.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await gate.wait()
        except TimeoutError:
            gate.kill()
            await gate.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        file = self.log_file
        logs = [] if file is None else [str(file.with_stem(f"{file.stem}-gate"))]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "perak.agent.tunnels", str(self.state_dir), self.url),
            *(self.log_level, *logs),
            stdin=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
            start_new_session=True,  # Ctrl-C in the agent's terminal is for the agent to hand on
        )
