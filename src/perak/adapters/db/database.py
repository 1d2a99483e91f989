"""The pool of connections, transactions with their stores, and notifications between replicas."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import msgspec

from perak.adapters.db.blobs import PgBlobs
from perak.adapters.db.challenges import PgChallenges
from perak.adapters.db.checklists import PgChecklists
from perak.adapters.db.devices import PgDevices
from perak.adapters.db.idempotency import PgIdempotency
from perak.adapters.db.jobs import PgJobs
from perak.adapters.db.keys import PgKeys
from perak.adapters.db.leases import PgLeases
from perak.adapters.db.ledger import PgLedger
from perak.adapters.db.nodes import PgNodes
from perak.adapters.db.offers import PgOffers
from perak.adapters.db.secrets import PgSecrets
from perak.adapters.db.sessions import REPLICA_LOCK, PgSessions
from perak.adapters.db.settlements import PgSettlements
from perak.adapters.db.trail import PgTrail
from perak.adapters.db.webhooks import PgWebhooks

POOL_SIZE = 12
"""Connections of one replica: more only queue at the disk on a small machine."""
COMMAND_SECONDS_MAX = 30.0
"""No statement of ours takes this long; one that does is stuck, and its transaction is given up."""
RECONNECT_SECONDS = 1.0

DUTIES = {"market": 0x7065_0001, "watch": 0x7065_0002, "batch": 0x7065_0003}
"""Advisory locks of the duties that one transaction at a time may do."""


class PgTransaction:
    """perak.app.ports.Transaction on PostgreSQL."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.jobs = PgJobs(connection)
        self.leases = PgLeases(connection)
        self.ledger = PgLedger(connection)
        self.nodes = PgNodes(connection)
        self.offers = PgOffers(connection)
        self.checklists = PgChecklists(connection)
        self.devices = PgDevices(connection)
        self.challenges = PgChallenges(connection)
        self.secrets = PgSecrets(connection)
        self.sessions = PgSessions(connection)
        self.settlements = PgSettlements(connection)
        self.keys = PgKeys(connection)
        self.idempotency = PgIdempotency(connection)
        self.blobs = PgBlobs(connection)
        self.trail = PgTrail(connection)
        self.webhooks = PgWebhooks(connection)

    async def single(self, duty: str) -> None:
        await self.connection.execute("select pg_advisory_xact_lock($1)", DUTIES[duty])

    async def alone(self, duty: str) -> bool:
        """Whether this is the only transaction with the duty now; it stays so until its end."""
        found: bool = await self.connection.fetchval("select pg_try_advisory_xact_lock($1)", DUTIES[duty])
        return found


class Database:
    """One replica's way to PostgreSQL."""

    def __init__(self, pool: Any, url: str) -> None:
        self._pool = pool
        self._url = url
        self._listeners: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str, *, pool_size: int = POOL_SIZE) -> Database:
        """Connect; `url` is a PostgreSQL URL. Raises OSError or asyncpg.PostgresError."""
        pool = await asyncpg.create_pool(
            url,
            min_size=2,
            max_size=pool_size,
            init=_prepare,
            reset=_keep,
            command_timeout=COMMAND_SECONDS_MAX,
        )
        return cls(pool, url)

    async def close(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PgTransaction]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield PgTransaction(connection)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for reads."""
        async with self._pool.acquire() as connection:
            yield connection

    async def notify(self, channel: str, payload: str) -> None:
        await self._pool.execute("select pg_notify($1, $2)", channel, payload)

    async def listen(self, channel: str, callback: Callable[[str], None], *, replica: int) -> None:
        """Call back with each notification on `channel`, reconnecting as needed; some may be lost.

        The same connection shows that the replica lives: its lock goes when the process does.
        """
        ready = asyncio.Event()
        self._listeners.append(asyncio.create_task(self._listen(channel, callback, replica, ready)))
        await ready.wait()

    async def _listen(
        self, channel: str, callback: Callable[[str], None], replica: int, ready: asyncio.Event
    ) -> None:
        while True:
            connection = None
            try:
                connection = await asyncpg.connect(self._url)
                lost = asyncio.Event()
                connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                await connection.execute("select pg_advisory_lock_shared($1, $2)", REPLICA_LOCK, replica)
                await connection.add_listener(channel, lambda *args: callback(args[3]))
                ready.set()
                await lost.wait()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                ready.set()
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(RECONNECT_SECONDS)


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
        format="text",
    )


async def _keep(connection: Any) -> None:
    """Nothing to reset: every use is a transaction, and none changes the session's settings."""
