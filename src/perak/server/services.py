"""What the routes, sessions and loops of one replica share."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg

from perak.adapters.blobs import Blobs
from perak.adapters.db.database import Database, PgTransaction
from perak.adapters.db.upkeep import lock_start
from perak.app.context import Context
from perak.app.effects import Effect
from perak.app.periods import Periods
from perak.server import clock
from perak.server.auth import KeyCache
from perak.server.bootstrap import FirstStart, set_up
from perak.server.clock import NewId
from perak.server.hub import CHANNEL, Hub
from perak.server.identity import Identity, open_identity
from perak.server.logging import get_logger
from perak.server.metrics import Metrics
from perak.server.patience import Patience
from perak.server.presence import Presence
from perak.server.ratelimits import RateLimits
from perak.server.settings import Settings
from perak.server.webhooks import Sender

TRANSACTION_TRIES = 4
"""Two transactions may want the same rows in another order; PostgreSQL ends one, and it is tried again."""

_log = get_logger(__name__)

T = TypeVar("T")
Action = Callable[[PgTransaction], Awaitable[tuple[T, Sequence[Effect]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of one replica, opened."""

    db: Database
    blobs: Blobs
    hub: Hub
    identity: Identity
    context: Context
    keys: KeyCache
    limits: RateLimits
    metrics: Metrics
    presence: Presence
    webhook_sender: Sender
    patience: Patience
    periods: Periods
    url: str
    """Where nodes and clients reach this exchange; invites carry it."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the replica is about to end: streams and sessions close."""

    async def commit(self, action: Action[T]) -> T:
        """Do `action` in one transaction, then wake what it touched. Raises what the action raises."""
        for attempt in range(TRANSACTION_TRIES):
            try:
                async with self.db.transaction() as tx:
                    result, effects = await action(tx)
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                self.metrics.retried_transactions.inc()
                _log.warning("a transaction met another one and is tried again", error=str(error))
                if attempt == TRANSACTION_TRIES - 1:
                    raise
                continue
            self.hub.publish(effects)
            return result
        raise AssertionError("the loop returns or raises")


@contextlib.asynccontextmanager
async def open_services(settings: Settings, *, url: str) -> AsyncIterator[tuple[Services, FirstStart | None]]:
    """Connect all parts; the second value tells of a first start. The schema must be up to date."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = await Database.open(settings.database)
    try:
        async with db.transaction() as tx:
            await lock_start(tx.connection)
            identity, first = await open_identity(tx.connection, settings, now=clock.now())
            new_id = NewId(identity.facts.name)
            started = await set_up(tx, settings, new_id=new_id, first=first, now=clock.now())
        hub = Hub(secrets.token_hex(8))
        keys = KeyCache(db)
        hub.on_keys_changed(keys.clear)
        await db.listen(CHANNEL, hub.receive)
        context = Context(exchange=identity.facts, new_id=new_id, sign_receipt=identity.sign_receipt)
        yield (
            Services(
                db=db,
                blobs=Blobs.open(settings.blob_url),
                hub=hub,
                identity=identity,
                context=context,
                keys=keys,
                limits=RateLimits(),
                metrics=Metrics(),
                patience=settings.patience,
                webhook_sender=Sender(to_private=settings.webhooks_to_private),
                presence=Presence(suspect_after_seconds=settings.periods.suspect_after_seconds),
                periods=settings.periods,
                url=url,
            ),
            started,
        )
    finally:
        await db.close()
