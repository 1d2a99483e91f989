"""What each node in a session here should have now: read for many at once, and sent where it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import asyncpg

from perak.adapters.db.database import Database
from perak.adapters.db.views.market import LiveLease
from perak.adapters.db.views.orders import Mark, leases_of, mark, marks, revoked
from perak.app.context import GridPicture
from perak.domain.carbon.budget import joules_allowed
from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.hardware.challenge import Challenge
from perak.server import clock
from perak.server.hub import DialHint
from perak.server.logging import get_logger
from perak.wire.session import InputOrder, LeaseOrder, SecretOrder

AT_ONCE = 256
"""Nodes whose leases are read in one statement."""

_log = get_logger(__name__)


class Ordered(Protocol):
    """A session, which tells its node what to have."""

    node: str
    ordered: Mark | None
    """What the node was told last; None: nothing yet."""

    def on_orders(self, leases: Sequence[LeaseOrder], told: Mark) -> None: ...

    def on_revoked(self) -> None: ...

    def on_dial(self, hint: DialHint) -> None: ...

    def on_prove(self, challenge: Challenge) -> None: ...


class Orders:
    """The sessions of one replica that have to be told. Hints come at once; `look` finds what they missed."""

    def __init__(self, db: Database, grid: GridPicture) -> None:
        self._db = db
        self._grid = grid
        self._sessions: dict[str, Ordered] = {}
        self._wanted: dict[str, None] = {}
        self._reading: asyncio.Task[None] | None = None

    def enter(self, session: Ordered) -> None:
        """Tell a new session, now and whenever something changes."""
        self._sessions[session.node] = session
        self.want(session.node)

    def leave(self, session: Ordered) -> None:
        if self._sessions.get(session.node) is session:
            del self._sessions[session.node]

    def want(self, node: str) -> None:
        """Something may have changed for the node."""
        if node not in self._sessions:
            return
        self._wanted[node] = None
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_wanted())

    def dial(self, hint: DialHint) -> None:
        """A tunnel waits for the node, if its session is here."""
        if (session := self._sessions.get(hint.node)) is not None:
            session.on_dial(hint)

    def nodes(self) -> list[str]:
        """Those in session here."""
        return list(self._sessions)

    def prove(self, node: str, challenge: Challenge) -> None:
        """Give a node its challenge, if it is still here."""
        if (session := self._sessions.get(node)) is not None:
            session.on_prove(challenge)

    async def look(self) -> None:
        """Compare what every node here was told with what is true, as hints may be lost."""
        nodes = list(self._sessions)
        if not nodes:
            return
        async with self._db.connection() as connection:
            found, gone = await marks(connection, nodes), await revoked(connection, nodes)
        for node in nodes:
            session = self._sessions.get(node)
            if session is not None and (node in gone or session.ordered != found.get(node, ())):
                self.want(node)

    async def _read_wanted(self) -> None:
        try:
            while self._wanted:
                nodes = list(islice(self._wanted, AT_ONCE))
                for node in nodes:
                    del self._wanted[node]
                await self._tell(nodes)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._wanted.clear()
            _log.warning("orders could not be read; the next look does it again", error=str(error))
        finally:
            self._reading = None

    async def _tell(self, nodes: Sequence[str]) -> None:
        async with self._db.connection() as connection:
            found, gone = await leases_of(connection, nodes), await revoked(connection, nodes)
        for node in nodes:
            session = self._sessions.get(node)
            if session is None:
                continue
            if node in gone:
                session.on_revoked()
                continue
            leases = found.get(node, [])
            told = mark(leases)
            if told != session.ordered:
                session.on_orders([order(lease, self._grid.now) for lease in leases], told)


def order(lease: LiveLease, grid: Grid = YEARLY_GRID) -> LeaseOrder:
    """The order for a live lease: run it, or stop it for the cause that is noted on it."""
    spec = lease.spec
    return LeaseOrder(
        lease=lease.lease,
        run=lease.run,
        job=lease.job,
        epoch=lease.epoch,
        wanted="run" if lease.stop_cause is None else "stop",
        stop_cause=lease.stop_cause,
        name=spec.name,
        command=spec.run,
        setup=spec.setup,
        env=spec.env,
        python_version=spec.python.version if spec.python else None,
        python_packages=spec.python.packages if spec.python else (),
        workdir_digest=spec.workdir_digest,
        outputs=spec.outputs,
        devices=lease.devices,
        cpu_milli=lease.cpu_milli,
        memory_bytes=lease.memory_bytes,
        disk_bytes=lease.disk_bytes,
        shm_bytes=spec.resources.shm_bytes,
        max_duration_seconds=lease.max_duration_seconds,
        image=f"{spec.image.name}@{spec.image.digest}" if spec.image else None,
        image_credentials=spec.image.credentials if spec.image else None,
        secrets=tuple(SecretOrder(name=each.name, kind=each.kind) for each in spec.secrets),
        inputs=tuple(
            InputOrder(path=each.path, url=each.url, digest=each.digest, credentials=each.credentials)
            for each in spec.inputs
        ),
        network_allow=spec.network_allow,
        tier=lease.tier,
        encrypt_to=spec.encrypt_to,
        joules_max=_joules_max(lease, grid),
    )


def _joules_max(lease: LiveLease, grid: Grid) -> float | None:
    """As counted from what the run has emitted; before that, all of the job's budget in the worst hour."""
    most = lease.spec.limits.max_carbon_grams
    if most is None or lease.joules_max is not None:
        return lease.joules_max
    worst = grid.worst(lease.region, now=clock.now().timestamp())
    return joules_allowed(left_grams=most - lease.emitted_grams, worst_grams_per_kwh=worst)
