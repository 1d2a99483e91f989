"""What the exchange does by itself: clear the market, watch nodes, forget old replies, pass hints on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.prices import price_profile
from perak.adapters.db.upkeep import forget_replies
from perak.adapters.db.workloads import PastMemory, PgWorkloads
from perak.app import incidents, market, watch
from perak.app.effects import Effect
from perak.domain.market.defer import PriceProfile
from perak.server import clock
from perak.server.batching import clear_batches, wait_seconds
from perak.server.challenging import challenge_devices
from perak.server.grid import keep_grid
from perak.server.keeping import evict
from perak.server.logging import get_logger
from perak.server.logs import archive_logs
from perak.server.marketkeeping import keep_market
from perak.server.reclaiming import give_back
from perak.server.reserving import keep_windows
from perak.server.services import Services
from perak.server.sightings import keep_sightings
from perak.server.sweeping import sweep
from perak.server.webhooks import deliver

MARKET_LOOK_SECONDS = 2.0
"""Offers open by the clock and hints may be lost: the market is looked at this often in any case."""
MARKET_PAUSE_SECONDS = 0.005
"""What arrives within this time of a clearing goes into one next clearing."""
PROFILE_SECONDS = 600.0
"""What hours of the day cost changes slowly; it is read this often."""
FORGET_EVERY_SECONDS = 600.0
REPLIES_KEPT = timedelta(hours=24)
"""Clients repeat a request within minutes, if at all."""
REPLIES_PER_ROUND = 1_000
RATE_EVERY_SECONDS = 60.0
RATES_PER_ROUND = 100
"""Standings, locked while they are counted; a node's next inspection waits for them."""
BACKOFF_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Waits after failed rounds in a row; a database that is away comes back within seconds, or not soon."""

_log = get_logger(__name__)


@contextlib.asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """All loops, until the block ends."""
    loops = {
        "market": clear_market,
        "batches": clear_batches,
        "watch": watch_nodes,
        "sessions": hang_up_silent,
        "orders": look_at_orders,
        "forget": forget_old,
        "rates": rate_devices,
        "hints": forward_hints,
        "webhooks": deliver,
        "evict": evict,
        "logs": archive_logs,
        "sweep": sweep,
        "grid": lambda each: keep_grid(each.grid, each.db),
        "sightings": note_sightings,
        "challenge": challenge_devices,
        "marketkeeping": keep_market,
        "windows": keep_windows,
        "reclaims": give_back,
    }
    tasks = [asyncio.create_task(_forever(services, name, loop)) for name, loop in loops.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forever(services: Services, name: str, loop: Callable[[Services], Awaitable[None]]) -> None:
    """Run a loop again whenever it fails: after a while, and after a longer one if it goes on failing."""
    failures = 0
    while True:
        started_at = time.monotonic()
        try:
            await loop(services)
        except Exception:
            failures = 0 if time.monotonic() - started_at > BACKOFF_SECONDS[-1] else failures
            wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures += 1
            services.metrics.loop_errors.labels(name).inc()
            _log.exception("a loop failed and starts again", loop=name, seconds=wait)
            await asyncio.sleep(wait)


async def clear_market(services: Services) -> None:
    """Clear the market whenever it changed. What changes meanwhile is seen by the next clearing."""
    prices, read_at = PriceProfile(), -PROFILE_SECONDS
    memory = PastMemory()
    with services.hub.market() as wakeup:
        while True:
            wakeup.clear()
            if time.monotonic() - read_at >= PROFILE_SECONDS:
                async with services.db.connection() as connection:
                    prices = await price_profile(connection, now=clock.now())
                read_at = time.monotonic()
            started_at = time.perf_counter()
            await services.commit(lambda tx, prices=prices: _clear(services, tx, prices, memory))  # type: ignore[misc]
            services.metrics.market_seconds.observe(time.perf_counter() - started_at)
            await asyncio.sleep(MARKET_PAUSE_SECONDS)
            await wakeup.wait(MARKET_LOOK_SECONDS)


async def _clear(
    services: Services, tx: PgTransaction, prices: PriceProfile, memory: PastMemory
) -> tuple[None, list[Effect]]:
    return None, await market.clear(
        tx,
        new_id=services.context.new_id,
        now=clock.now(),
        workloads=PgWorkloads(tx.connection, memory=memory),
        grid=services.context.grid.now,
        prices=prices,
        batch_wait_seconds=wait_seconds(services),
    )


async def watch_nodes(services: Services) -> None:
    """Several times a beat: note who was heard of, suspect who was not, and fence whose grace is over."""
    away = _log.info  # At a start the exchange comes from an absence, and nobody has to be warned of it.
    while True:
        started_at = time.monotonic()
        if await services.commit(lambda tx: _watch(services, tx)):
            away("the exchange was away; every node's silence is forgotten")
        away = _log.warning
        async with services.db.transaction() as tx:
            overdue = await watch.overdue_runs(tx, now=clock.now())
        for run in overdue:
            await services.commit(lambda tx, run=run: _fence(services, tx, run))  # type: ignore[misc]
            _log.warning("run fenced: its node stayed silent for longer than the job's grace", run=run)
        await _end_unreported(services)
        await asyncio.sleep(max(0.0, services.periods.watch_seconds - (time.monotonic() - started_at)))


async def _watch(services: Services, tx: PgTransaction) -> tuple[bool, list[Effect]]:
    """Whether the exchange was away."""
    now = clock.now()
    was_away = await watch.keep_alive(tx, periods=services.periods, now=now)
    await tx.sessions.replica_alive(services.replica, now=now)
    if seen := services.presence.take_seen():
        services.presence.hang_up_lost(seen, held=await tx.sessions.seen(seen))
    return was_away, await watch.suspect_silent(tx, periods=services.periods, now=now)


async def note_sightings(services: Services) -> None:
    """Now and then: write down what is new of where nodes are."""
    while services.sightings.wanted:
        await asyncio.sleep(services.periods.watch_seconds)
        if news := services.sightings.take_news():
            try:
                await services.commit(lambda tx, news=news: keep_sightings(tx, news))  # type: ignore[misc]
            except Exception:
                services.sightings.take_back(news)
                raise
    await asyncio.Event().wait()


async def hang_up_silent(services: Services) -> None:
    """End the sessions whose agents have gone silent; one task for all, as thousands of timers cost more."""
    while True:
        for session in services.presence.silent(services.periods.hang_up_after_seconds):
            _log.warning("a session is silent and is closed", node=session.node)
            session.hang_up()
        await asyncio.sleep(services.periods.watch_seconds)


async def look_at_orders(services: Services) -> None:
    """Once a beat: tell the nodes whose leases changed without a hint."""
    while True:
        await asyncio.sleep(services.periods.beat_seconds)
        await services.orders.look()


async def _fence(services: Services, tx: PgTransaction, run: str) -> tuple[None, list[Effect]]:
    return None, await watch.fence(tx, run=run, context=services.context, now=clock.now())


async def _end_unreported(services: Services) -> None:
    """End the runs that a stuck agent or shim says nothing of."""
    async with services.db.transaction() as tx:
        stuck = await watch.unreported_runs(tx, periods=services.periods, now=clock.now())
    for run, node in stuck:
        await services.commit(partial(_end_stuck, services, run=run, node=node))
        _log.warning("run ended: its node beats, and did not report its start or end in time", run=run)


async def _end_stuck(
    services: Services, tx: PgTransaction, *, run: str, node: str
) -> tuple[None, list[Effect]]:
    effects = await watch.end_unreported(
        tx, run=run, node=node, periods=services.periods, context=services.context, now=clock.now()
    )
    return None, effects


async def forget_old(services: Services) -> None:
    """Now and then: throw away replies that nobody asks for again, secrets of ended jobs, and old grades."""
    while True:
        forgotten = REPLIES_PER_ROUND
        while forgotten == REPLIES_PER_ROUND:
            async with services.db.transaction() as tx:
                before = clock.now() - REPLIES_KEPT
                forgotten = await forget_replies(tx.connection, before=before, limit=REPLIES_PER_ROUND)
                await tx.secrets.forget_of_ended(limit=REPLIES_PER_ROUND)
                await tx.devices.expire(now=clock.now(), limit=REPLIES_PER_ROUND)
        await asyncio.sleep(FORGET_EVERY_SECONDS)


async def rate_devices(services: Services) -> None:
    """Now and then: count again how often devices fail, after lost runs and incidents."""
    while True:
        counted = RATES_PER_ROUND
        while counted == RATES_PER_ROUND:
            async with services.db.transaction() as tx:
                counted = await incidents.rate_again(tx, now=clock.now(), limit=RATES_PER_ROUND)
        await asyncio.sleep(RATE_EVERY_SECONDS)


async def forward_hints(services: Services) -> None:
    """Pass wake-ups on to other replicas."""
    await services.hub.forward(services.db.notify)
