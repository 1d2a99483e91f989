"""Reports what runs write: from each byte on once, in order, in chunks that are worth a signature."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from perak.agent.core import Core, Exit
from perak.agent.journal import Journal
from perak.agent.sandbox import Sandbox
from perak.agent.settings import Limits
from perak.domain.report import Body, LogChunk
from perak.wire.session import LOG_CHUNK_BYTES_MAX, LeaseOrder

PREFIX_BYTES_MAX = 64 * 1024
"""The agent's own lines at the start of a log; an installation writes some hundred."""
CHUNKS_AT_ONCE = 4
"""Of one run's log before others get their turn."""


@dataclass(slots=True)
class _Tail:
    """How far the log of one run is reported. `offset` counts the agent's own `prefix_bytes` too."""

    prefix_bytes: int = 0
    offset: int = 0
    pumped_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, kw_only=True)
class Logs:
    """The logs of one node's runs, on its way to the journal."""

    core: Core
    journal: Journal
    sandbox: Sandbox
    limits: Limits
    report: Callable[[Body], object]
    _tails: dict[str, _Tail] = field(default_factory=dict)

    def take_up(self, run: str, *, prefix_bytes: int = 0, log_bytes: int = 0) -> None:
        """A run to follow, of which `log_bytes` are reported, the first `prefix_bytes` the agent's own."""
        self._tails[run] = _Tail(prefix_bytes=prefix_bytes, offset=log_bytes)

    def forget(self, run: str) -> None:
        self._tails.pop(run, None)

    def reported_bytes(self, run: str) -> int:
        tail = self._tails.get(run)
        return 0 if tail is None else tail.offset

    def follow(self, order: LeaseOrder) -> None:
        """Report what is new: at once after a pause, else gathered for a moment."""
        tail = self._tails[order.run]
        facts = self.core.runs.get(order.run)
        if tail.timer is not None or facts is None or not facts.started_reported or facts.has_ended:
            return
        loop = asyncio.get_running_loop()
        wait = tail.pumped_at + self.limits.log_interval_seconds - loop.time()
        if wait > 0:
            tail.timer = loop.call_later(wait, self._follow_later, order)
        elif self._pump(order):
            tail.timer = loop.call_later(self.limits.log_interval_seconds, self._follow_later, order)

    def _follow_later(self, order: LeaseOrder) -> None:
        tail = self._tails.get(order.run)
        if tail is not None:
            tail.timer = None
            self.follow(order)

    async def drain(self, order: LeaseOrder) -> None:
        """Report all that is left of an ended run's log."""
        while self._pump(order):
            # With the journal full the log stays in its file, until reports are acknowledged.
            full = self.journal.unacknowledged() > self.limits.unacknowledged_max
            await asyncio.sleep(self.limits.tick_seconds if full else 0)

    def _pump(self, order: LeaseOrder) -> bool:
        """Report some of the log; whether there may be more."""
        tail = self._tails[order.run]
        if self.journal.unacknowledged() > self.limits.unacknowledged_max:
            return True
        for _ in range(CHUNKS_AT_ONCE):
            data = self.sandbox.read_log(order.run, tail.offset - tail.prefix_bytes, LOG_CHUNK_BYTES_MAX)
            if not data:
                return False
            tail.pumped_at = asyncio.get_running_loop().time()
            self._report(order, tail, data)
        return True

    def say(self, order: LeaseOrder, line: str) -> None:
        """A line of the agent's own, before the job's first."""
        tail = self._tails.get(order.run)
        facts = self.core.runs.get(order.run)
        data = f"perak: {line}\n".encode()
        if tail is None or facts is None or facts.start_asked or facts.exit is not Exit.NONE:
            return
        if tail.prefix_bytes + len(data) > PREFIX_BYTES_MAX:
            return
        self.journal.add_prefix(order.run, len(data))
        tail.prefix_bytes += len(data)
        self._report(order, tail, data)

    def _report(self, order: LeaseOrder, tail: _Tail, data: bytes) -> None:
        self.report(
            LogChunk(run=order.run, lease=order.lease, epoch=order.epoch, offset=tail.offset, data=data)
        )
        tail.offset += len(data)
