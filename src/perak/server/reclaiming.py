"""Machines that go back to their owners, by the clock: renters are told, and what is left is stopped."""

from __future__ import annotations

import asyncio
from functools import partial

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.reclaims import PgReclaims
from perak.app import reclaim
from perak.app.effects import Effect
from perak.server import clock
from perak.server.reserving import stop
from perak.server.services import Services


async def give_back(services: Services) -> None:
    """For ever, about every second."""
    while True:
        await services.commit(_tell)
        async with services.db.transaction() as tx:
            stops = await reclaim.to_stop(PgReclaims(tx.connection), now=clock.now())
        for each in stops:
            await services.commit(partial(stop, wanted=each))
        await asyncio.sleep(services.periods.watch_seconds)


async def _tell(tx: PgTransaction) -> tuple[None, list[Effect]]:
    return None, await reclaim.tell(tx, PgReclaims(tx.connection), now=clock.now())
