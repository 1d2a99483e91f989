"""Escape checklists: whoever holds a digest, from an offer or a receipt, gets the document."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from perak.adapters.db.views.checklists import get_checklist
from perak.domain.errors import NotFound
from perak.server.access import services_of
from perak.server.auth import public
from perak.server.writes import reply
from perak.wire.api import ChecklistView

router = APIRouter(prefix="/v1/checklists", tags=["offers"])


@router.get("/{digest}", response_model=ChecklistView, dependencies=[Depends(public)])
async def get(digest: str, request: Request) -> Response:
    """What a node tried from inside one of its sandboxes and how it came out, with the node's signature."""
    async with services_of(request).db.connection() as connection:
        found = await get_checklist(connection, digest)
    if found is None:
        raise NotFound(f"there is no checklist {digest[:80]}; offers and receipts name those there are")
    return reply(found)
