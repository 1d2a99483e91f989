"""What the routes, sessions and loops of one replica share."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from perak.adapters.blobs import Blobs
from perak.adapters.db.database import Database
from perak.adapters.db.upkeep import lock_start
from perak.adapters.feeds.config import GridFile, read_grid_file
from perak.app.context import Context, GridPicture
from perak.app.periods import Periods
from perak.server import clock
from perak.server.auth import KeyCache
from perak.server.bootstrap import FirstStart, set_up
from perak.server.clock import NewId
from perak.server.committer import ReportCommitter
from perak.server.greetings import Greetings
from perak.server.grid import GridKeeper
from perak.server.hub import CHANNEL, Hub
from perak.server.identity import Identity, open_identity
from perak.server.metrics import Metrics
from perak.server.orders import Orders
from perak.server.patience import Patience
from perak.server.presence import Presence
from perak.server.ratelimits import RateLimits
from perak.server.settings import Quotas, Settings
from perak.server.sightings import Sightings
from perak.server.transact import Transact
from perak.server.tunnels import Tunnels
from perak.server.webhooks import Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of one replica, opened."""

    db: Database
    commit: Transact
    """Do something in one transaction, then wake what it touched."""
    apply: ReportCommitter
    """Apply reports of a node, together with those of others that wait."""
    blobs: Blobs
    hub: Hub
    identity: Identity
    context: Context
    keys: KeyCache
    limits: RateLimits
    metrics: Metrics
    presence: Presence
    greetings: Greetings
    orders: Orders
    grid: GridKeeper
    sightings: Sightings
    replica: int
    """The number of this replica among those of its database."""
    webhook_sender: Sender
    patience: Patience
    periods: Periods
    quotas: Quotas
    tunnels: Tunnels
    replica_url: str | None
    """Where this very replica is reached, if several stand behind one address."""
    url: str
    """Where nodes and clients reach this exchange; invites carry it."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the replica is about to end: streams and sessions close."""


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
            replica = await tx.sessions.replica_starts(now=clock.now())
            started = await set_up(tx, settings, new_id=new_id, first=first, now=clock.now())
        hub = Hub(secrets.token_hex(8))
        keys = KeyCache(db)
        hub.on_keys_changed(keys.clear)
        metrics = Metrics()
        commit = Transact(db, hub, metrics)
        picture = GridPicture()
        orders = Orders(db, picture)
        hub.on_node_changed(orders.want)
        hub.on_dial(orders.dial)
        await db.listen(CHANNEL, hub.receive, replica=replica)
        context = Context(
            exchange=identity.facts,
            new_id=new_id,
            sign_receipt=identity.sign_receipt,
            sign_passport=identity.sign_passport,
            grid=picture,
        )
        grid = read_grid_file(settings.grid_file) if settings.grid_file else GridFile()
        yield (
            Services(
                db=db,
                commit=commit,
                apply=ReportCommitter(commit, context),
                blobs=Blobs.open(settings.blob_url),
                hub=hub,
                identity=identity,
                context=context,
                keys=keys,
                limits=RateLimits(),
                metrics=metrics,
                patience=settings.patience,
                webhook_sender=Sender(to_private=settings.webhooks_to_private),
                presence=Presence(suspect_after_seconds=settings.periods.suspect_after_seconds),
                greetings=Greetings(db, commit, replica=replica, periods=settings.periods),
                orders=orders,
                grid=GridKeeper(grid, picture),
                sightings=Sightings(grid),
                replica=replica,
                periods=settings.periods,
                quotas=settings.quotas,
                tunnels=Tunnels(hub, url=settings.replica_url or url, periods=settings.tunnels),
                replica_url=settings.replica_url,
                url=url,
            ),
            started,
        )
    finally:
        await db.close()
