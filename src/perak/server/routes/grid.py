"""The grid's carbon, and a project's month of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from perak.adapters.db.views.carbon import carbon_report
from perak.app.grid import ZoneState
from perak.domain.carbon.placement import YEARLY, Grid, ZoneOutlook
from perak.domain.carbon.signal import SECONDS_PER_HOUR, hour_of
from perak.domain.errors import InvalidInput
from perak.domain.regions import normal_region
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import AnyCaller
from perak.server.grid import GridKeeper
from perak.server.writes import reply
from perak.wire.api.grid import CarbonReport, GridHour, GridZone, GridZones, MarginalHour

router = APIRouter(prefix="/v1", tags=["carbon"])

BACK_HOURS, AHEAD_HOURS = 24, 72
_MONTH = re.compile(r"[1-9][0-9]{3}-(0[1-9]|1[0-2])")
YEAR_MAX = 9998
"""Months end in the next year at the latest, and calendars here end with 9999."""
_REGION = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}")


@router.get("/grid", response_model=GridZones)
async def list_zones(request: Request, caller: AnyCaller) -> Response:
    """The zones that have a feed here, as they are now."""
    keeper = services_of(request).grid
    regions = dict.fromkeys(state.of.region for state in keeper.book.states)
    return reply(GridZones(zones=[_zone(keeper, region, hours=False) for region in regions]))


@router.get("/grid/{region}", response_model=GridZone)
async def get_zone(region: str, request: Request, caller: AnyCaller) -> Response:
    """A zone's hours, measured and ahead; of a region without a feed, the larger zone or the year's mean."""
    name = normal_region(region)
    if not _REGION.fullmatch(name):
        raise InvalidInput(f"{region[:40]!r} is no region; write it like DE or US-CA")
    return reply(_zone(services_of(request).grid, name, hours=True))


@router.get("/reports/carbon", response_model=CarbonReport)
async def report_carbon(
    request: Request, caller: AnyCaller, month: Annotated[str | None, Query(max_length=7)] = None
) -> Response:
    """The carbon of the project's receipts of a month (``2026-11``, UTC), the present one by default."""
    wanted = month or f"{clock.now():%Y-%m}"
    if not _MONTH.fullmatch(wanted) or int(wanted[:4]) > YEAR_MAX:
        raise InvalidInput(f"{wanted!r} is no month; write it like 2026-11")
    since = datetime(int(wanted[:4]), int(wanted[5:]), 1, tzinfo=UTC)
    until = since.replace(year=since.year + since.month // 12, month=since.month % 12 + 1)
    async with services_of(request).db.connection() as connection:
        report = await carbon_report(
            connection, project=caller.project, month=wanted, since=since, until=until
        )
    return reply(report)


def _zone(keeper: GridKeeper, region: str, *, hours: bool) -> GridZone:
    now = clock.now()
    grid = keeper.picture.now
    outlook = grid.zone(region)
    state = _state(keeper, region)
    marginal = _state(keeper, region, marginal=True)
    this_hour = hour_of(now.timestamp())
    grams, kind = outlook.at(this_hour)
    known = outlook.measured
    return GridZone(
        region=region if state is None else state.of.region,
        feed=None if state is None else state.of.feed.name,
        feed_zone=None if state is None else state.of.zone,
        tried_live=None if state is None else state.of.feed.tried_live,
        now=_hour(this_hour, grams, kind),
        source=known.source if known is not None and kind != YEARLY else outlook.yearly.source,
        forecast_source=None if outlook.forecast is None else outlook.forecast.source,
        factor=None if known is None else known.factor,
        note=outlook.note or None,
        read_at=None if state is None else state.read_at,
        yearly_grams_per_kwh=outlook.yearly.grams_per_kwh,
        yearly_source=f"{outlook.yearly.region} {outlook.yearly.year}: {outlook.yearly.source}",
        hours=_hours(grid, outlook, region, this_hour) if hours else [],
        marginal=_marginal(marginal) if hours else [],
        marginal_source=None if marginal is None or marginal.marginal is None else marginal.marginal.source,
    )


def _state(keeper: GridKeeper, region: str, *, marginal: bool = False) -> ZoneState | None:
    """Of the zone or of what it lies in, as `Grid.zone` looks it up."""
    while region:
        if (found := keeper.book.state(region, marginal=marginal)) is not None:
            return found
        region = region.rpartition("-")[0]
    return None


def _hours(grid: Grid, outlook: ZoneOutlook, region: str, this_hour: int) -> list[GridHour]:
    """From the first known hour of the last day to the last known one ahead."""
    start = float((this_hour - BACK_HOURS) * SECONDS_PER_HOUR)
    found = grid.hourly(region, start=start, hours=BACK_HOURS + AHEAD_HOURS)
    known = [index for index, (_, _, kind) in enumerate(found) if kind != YEARLY]
    if not known or (outlook.measured is None and outlook.forecast is None):
        return []
    return [_hour(*each) for each in found[known[0] : known[-1] + 1]]


def _hour(hour: int, grams: float, kind: str) -> GridHour:
    return GridHour(
        at=datetime.fromtimestamp(hour * SECONDS_PER_HOUR, tz=UTC), grams_per_kwh=grams, kind=kind
    )


def _marginal(state: ZoneState | None) -> list[MarginalHour]:
    series = None if state is None else state.marginal
    if series is None:
        return []
    return [
        MarginalHour(
            at=datetime.fromtimestamp((series.first_hour + index) * SECONDS_PER_HOUR, tz=UTC),
            grams_per_kwh=value,
        )
        for index, value in enumerate(series.grams_per_kwh)
        if value is not None
    ]
