"""Agents that say Hello at the same time are looked up, and their sessions opened, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perak.adapters.db.database import Database, PgTransaction
from perak.adapters.db.sessions import sign_keys
from perak.app.effects import Effect
from perak.app.periods import Periods
from perak.app.records import NodeRecord
from perak.app.sessions import Greeting, connect
from perak.domain.errors import Conflict, DomainError
from perak.server import clock
from perak.server.gather import Gather
from perak.server.logging import get_logger
from perak.server.transact import Transact

AT_ONCE = 128
"""Nodes in one transaction: their rows are locked for some 20 ms, and the other statements are as few."""

_log = get_logger(__name__)


class Greetings:
    """Keys to check a Hello with, sessions opened and ended; each for all who wait."""

    def __init__(self, db: Database, commit: Transact, *, replica: int, periods: Periods) -> None:
        self._db = db
        self._commit = commit
        self._replica = replica
        self._periods = periods
        self.key: Gather[str, bytes | None] = Gather(self._keys, most=AT_ONCE)
        """The public key of a node that is enrolled and not revoked, by its id."""
        self.connect: Gather[Greeting, NodeRecord] = Gather(self._connect, most=AT_ONCE)
        """Open the session of a node that proved its key. Raises what `app.sessions.connect` answers."""
        self._release: Gather[tuple[str, int], None] = Gather(self._released, most=AT_ONCE)
        self._releasing: set[asyncio.Task[None]] = set()

    def release(self, node: str, session: int) -> None:
        """A session ended: another agent of the node may dial now, at any replica."""
        task = asyncio.create_task(self._release((node, session)))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _keys(self, nodes: Sequence[str]) -> list[bytes | None]:
        async with self._db.connection() as connection:
            keys = await sign_keys(connection, nodes)
        return [keys.get(node) for node in nodes]

    async def _connect(self, greetings: Sequence[Greeting]) -> list[NodeRecord | DomainError]:
        latest = {greeting.node: greeting for greeting in greetings}

        async def action(tx: PgTransaction) -> tuple[list[NodeRecord | DomainError], Sequence[Effect]]:
            return await connect(
                tx,
                greetings=list(latest.values()),
                replica=self._replica,
                periods=self._periods,
                now=clock.now(),
            )

        answers = dict(zip(latest, await self._commit(action), strict=True))
        again = Conflict("this agent dialled again")
        return [answers[each.node] if latest[each.node] is each else again for each in greetings]

    async def _released(self, sessions: Sequence[tuple[str, int]]) -> list[None]:
        try:
            async with self._db.transaction() as tx:
                await tx.sessions.released(sorted(sessions))
        except Exception as error:
            # It only frees sooner what a silence of some seconds frees as well.
            _log.info("the end of sessions could not be noted", sessions=len(sessions), error=str(error))
        return [None] * len(sessions)
