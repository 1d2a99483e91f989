"""The grid as one replica knows it: feeds are read in a loop, and what they told is kept for all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from perak.adapters.db.database import Database
from perak.adapters.db.grid import HOURS_KEPT, forget_hours, read_hours, write_hours
from perak.adapters.feeds.config import GridFile
from perak.app.context import GridPicture
from perak.app.grid import GridBook, ZoneState
from perak.domain.carbon.signal import hour_of
from perak.server import clock
from perak.server.logging import get_logger

LOOK_SECONDS = 20.0
"""How often it is asked which zones are due; a zone itself is read four times an hour."""
READ_SECONDS_MAX = 60.0
"""A library that doesn't keep its own time limit is left behind."""
PAST_HOURS = 24 * 40
"""Of the hours that are read back at a start: receipts of runs of a month."""

_log = get_logger(__name__)


@dataclass(slots=True)
class GridKeeper:
    """The feeds of the operator's grid file, and the picture that they make."""

    file: GridFile
    picture: GridPicture
    book: GridBook = field(init=False)
    _known: bool = False

    def __post_init__(self) -> None:
        self.book = GridBook([ZoneState(each) for each in self.file.feeds])

    async def look(self, db: Database) -> None:
        """Read what is due, all zones at once, and draw the picture anew."""
        if not self._known:
            await self._remember(db)
        now = clock.now()
        due = [state for state in self.book.states if state.due(now)]
        await asyncio.gather(*(self._read(db, state) for state in due))
        self.picture.now = self.book.grid(clock.now())

    async def _remember(self, db: Database) -> None:
        """What feeds told before this start."""
        since = hour_of(clock.now().timestamp())
        async with db.transaction() as tx:
            await forget_hours(tx.connection, before_hour=since - HOURS_KEPT)
            for state in self.book.states:
                if not state.of.marginal:
                    state.measured = await read_hours(
                        tx.connection, state.of.region, since_hour=since - PAST_HOURS
                    )
        self._known = True

    async def _read(self, db: Database, state: ZoneState) -> None:
        of, now = state.of, clock.now()
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                reading = await of.feed.read(of.zone, now=now)
        except Exception as error:  # A feed is somebody else's code and somebody else's server.
            first = not state.problem
            state.failed(error, now=clock.now())
            if first:
                _log.warning("a grid feed failed", region=of.region, problem=state.problem)
            return
        state.took(reading, now=now, refresh_seconds=self.file.refresh_seconds)
        if reading.measured is not None and state.measured is not None and not of.marginal:
            async with db.transaction() as tx:
                await write_hours(tx.connection, state.measured)


async def keep_grid(keeper: GridKeeper, db: Database, *, every_seconds: float = LOOK_SECONDS) -> None:
    """For ever; nothing to do where no zone has a feed."""
    while keeper.book.states:
        await keeper.look(db)
        await asyncio.sleep(every_seconds)
    await asyncio.Event().wait()
