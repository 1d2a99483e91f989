"""The public price history."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from perak.adapters.db import prices as db
from perak.adapters.db.workloads import accuracy
from perak.domain.market.ticker import Cell, history
from perak.domain.units import format_money
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import public
from perak.server.writes import reply
from perak.wire.api.prices import Accuracy, PriceCell, Prices

HOURS_DEFAULT = 24 * 7
HOURS_MAX = 24 * 92
"""Three months at once; older ones are asked for by `before_hours`."""

router = APIRouter(prefix="/v1/prices", tags=["offers"])


@router.get("", response_model=Prices, dependencies=[Depends(public)])
async def get(
    request: Request,
    hours: Annotated[int, Query(ge=1, le=HOURS_MAX)] = HOURS_DEFAULT,
    before_hours: Annotated[int, Query(ge=0, le=24 * 3660, description="end so many hours ago")] = 0,
) -> Response:
    """What was offered, bid, cancelled and traded, by class and hour; no key is needed."""
    services = services_of(request)
    until = clock.now() - timedelta(hours=before_hours)
    since = until - timedelta(hours=hours)
    async with services.db.connection() as connection:
        happened = await db.happened(connection, since=since, until=until)
        used = await db.used(connection, since=since - timedelta(hours=1), until=until)
        foretold = await accuracy(connection, since=since)
    return reply(
        Prices(
            currency=services.identity.facts.currency,
            since=since,
            until=until,
            cells=[_view(cell) for cell in history(happened, used)],
            predictions=[Accuracy(**row) for row in foretold],
        )
    )


def _view(cell: Cell) -> PriceCell:
    return PriceCell(
        hour=cell.hour,
        gpu=cell.gpu,
        model=cell.model,
        region=cell.region,
        grade=cell.grade,
        p10=_money(cell.p10),
        median=_money(cell.median),
        p90=_money(cell.p90),
        trades=cell.trades,
        thin=cell.thin,
        devices=cell.devices,
        device_hours=cell.device_hours,
        utilisation=cell.utilisation,
        offers=cell.offers,
        bids=cell.bids,
        cancellations=cell.cancellations,
    )


def _money(micros: int | None) -> str | None:
    return None if micros is None else format_money(micros)
