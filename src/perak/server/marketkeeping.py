"""What the market needs besides clearing: quotes that nobody used are given back, use is sampled."""

from __future__ import annotations

import asyncio

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.prices import sample
from perak.adapters.db.quotes import PgQuotes
from perak.app.effects import Effect
from perak.app.quotes import expire
from perak.server import clock
from perak.server.services import Services

LOOK_SECONDS = 5.0
"""A held quote is given back this long after it expired, at most."""
SAMPLE_SECONDS = 60.0
"""Use is counted so often; hours are what is shown."""


async def keep_market(services: Services) -> None:
    """For ever: expire quotes, and count now and then what is offered and leased."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await services.commit(_expire)
        async with services.db.transaction() as tx:
            await sample(tx.connection, now=clock.now(), every_seconds=SAMPLE_SECONDS)


async def _expire(tx: PgTransaction) -> tuple[None, list[Effect]]:
    return None, await expire(PgQuotes(tx.connection), now=clock.now())
