"""The exchange's clock, and the ids that it makes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from perak.domain import ids

Clock = Callable[[], datetime]


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


class NewId:
    """Makes the ids of one exchange. Those of one process grow, so that jobs queue in the order they came."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._ms = 0
        self._random = 0

    def __call__(self, kind: str) -> str:
        ms = time.time_ns() // 1_000_000
        if ms > self._ms:
            self._ms, self._random = ms, secrets.randbits(ids.RANDOM_BITS - 1)
        else:  # The same millisecond, or the clock was set back: go on from the last one.
            self._random += 1 + secrets.randbits(16)
        return ids.new_id(kind, exchange=self._exchange, now_ms=self._ms, random=self._random)
