"""Standing offers: everybody sees all, their providers set their own."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views import market as views
from perak.app.effects import Effect
from perak.app.nodes import OfferSetting, set_offer
from perak.domain.errors import NotFound
from perak.domain.units import parse_money
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import AnyCaller, Provider
from perak.server.paging import AskedPage
from perak.server.trail import Deed
from perak.server.writes import reply, write
from perak.wire.api import Offer, OfferChange, Page

router = APIRouter(prefix="/v1/offers", tags=["offers"])


@router.get("", response_model=Page[Offer])
async def list_offers(request: Request, caller: AnyCaller, paging: AskedPage) -> Response:
    """Every offer of the exchange, newest first."""
    async with services_of(request).db.connection() as connection:
        offers = await views.list_offers(connection, before=paging.cursor, limit=paging.read)
    return reply(paging.page(Page[Offer], offers))


@router.get("/{offer}", response_model=Offer)
async def get_offer(offer: str, request: Request, caller: AnyCaller) -> Response:
    async with services_of(request).db.connection() as connection:
        found = await views.get_offer(connection, offer)
    if found is None:
        raise NotFound(f"there is no offer {offer[:80]}; `perak offer ls` lists them")
    return reply(found)


@router.patch("/{offer}", response_model=Offer)
async def change_offer(offer: str, body: OfferChange, request: Request, caller: Provider) -> Response:
    """Pause, resume or price one's own offer; leases that run keep their price."""
    setting = OfferSetting(
        state=body.state, price_gpu=_price(body.price_gpu), price_cpu=_price(body.price_cpu)
    )

    async def action(tx: PgTransaction) -> tuple[Offer, Sequence[Effect]]:
        effects = await set_offer(tx, caller=caller, offer_id=offer, setting=setting, now=clock.now())
        changed = await views.get_offer(tx.connection, offer)
        assert changed is not None, "the use case found it"
        return changed, effects

    deed = Deed(caller, f"offer.{body.state or 'price'}", subject=offer)
    return await write(request, action, project=caller.project, deed=deed)


def _price(text: str | None) -> int | str | None:
    return text if text is None or text == "default" else parse_money(text)
