"""Reserved windows by the clock: begun at their start, ended at their end."""

from __future__ import annotations

import asyncio
from functools import partial

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.reservations import PgReservations
from perak.app import reservations
from perak.app.effects import Effect
from perak.server import clock
from perak.server.services import Services


async def keep_windows(services: Services) -> None:
    """For ever, about every second: stop whose time is over, then begin whose window has come."""
    while True:
        async with services.db.transaction() as tx:
            stops = await reservations.to_stop(PgReservations(tx.connection), now=clock.now())
        for each in stops:
            await services.commit(partial(stop, wanted=each))
        async with services.db.transaction() as tx:
            due = await reservations.due(PgReservations(tx.connection), now=clock.now())
        for job in due:
            await services.commit(partial(_begin, services, job=job))
        await asyncio.sleep(services.periods.watch_seconds)


async def stop(tx: PgTransaction, *, wanted: reservations.Stop) -> tuple[None, list[Effect]]:
    """Ask one run to end."""
    return None, await reservations.stop(tx, wanted, now=clock.now())


async def _begin(services: Services, tx: PgTransaction, *, job: str) -> tuple[None, list[Effect]]:
    effects = await reservations.begin(
        tx,
        PgReservations(tx.connection),
        job,
        new_id=services.context.new_id,
        now=clock.now(),
        grid=services.context.grid.now,
    )
    return None, effects
