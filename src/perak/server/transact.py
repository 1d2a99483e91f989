"""One use case in one transaction, and the wake-ups that follow from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg

from perak.adapters.db.database import Database, PgTransaction
from perak.app.effects import Effect
from perak.server.hub import Hub
from perak.server.logging import get_logger
from perak.server.metrics import Metrics

TRANSACTION_TRIES = 4
"""Two transactions may want the same rows in another order; PostgreSQL ends one, and it is tried again."""

_log = get_logger(__name__)

T = TypeVar("T")
Action = Callable[[PgTransaction], Awaitable[tuple[T, Sequence[Effect]]]]


class Transact:
    """Does actions on one replica's database."""

    def __init__(self, db: Database, hub: Hub, metrics: Metrics) -> None:
        self._db = db
        self._hub = hub
        self._metrics = metrics

    async def __call__(self, action: Action[T]) -> T:
        """Do `action` in one transaction, then wake what it touched. Raises what the action raises."""
        for attempt in range(TRANSACTION_TRIES):
            try:
                async with self._db.transaction() as tx:
                    result, effects = await action(tx)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                self._metrics.retried_transactions.inc()
                _log.warning("a transaction met another one and is tried again", error=str(error))
                if attempt == TRANSACTION_TRIES - 1:
                    raise
                continue
            self._hub.publish(effects)
            return result
        raise AssertionError("the loop returns or raises")
