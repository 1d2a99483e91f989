"""The trail of what was done with keys, projects, money, secrets and nodes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.domain.errors import InvalidInput
from perak.server.access import services_of
from perak.server.auth import AnyCaller
from perak.server.paging import AskedPage
from perak.server.writes import reply
from perak.wire.api import Page, TrailEntry

router = APIRouter(prefix="/v1", tags=["keys and projects"])


@router.get("/trail", response_model=Page[TrailEntry])
async def list_trail(request: Request, caller: AnyCaller, paging: AskedPage) -> Response:
    """What the project's keys did, newest first; the operator sees what everybody's did."""
    if paging.cursor is not None and not (paging.cursor.isdigit() and len(paging.cursor) <= 18):
        raise InvalidInput("this cursor is not one of this list; start without one")
    before = None if paging.cursor is None else int(paging.cursor)
    project = None if "operator" in caller.roles else caller.project
    async with services_of(request).db.transaction() as tx:
        found = await tx.trail.newest(project=project, before=before, limit=paging.read)
    return reply(paging.page(Page[TrailEntry], found))
