"""What a provider's nodes earned."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from perak.adapters.db.views import earnings as views
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Provider
from perak.server.writes import reply
from perak.wire.api import Earnings

DAYS_DEFAULT, DAYS_MAX = 30, 366

router = APIRouter(prefix="/v1", tags=["money"])


@router.get("/earnings", response_model=Earnings)
async def get_earnings(
    request: Request, caller: Provider, days: Annotated[int, Query(ge=1, le=DAYS_MAX)] = DAYS_DEFAULT
) -> Response:
    """What the project's nodes earned in the last `days` days (UTC, today included), and in all."""
    services = services_of(request)
    today = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    async with services.db.connection() as connection:
        found = await views.get_earnings(
            connection,
            project=caller.project,
            since=today - timedelta(days=days - 1),
            exchange=services.identity.facts,
        )
    return reply(found)
