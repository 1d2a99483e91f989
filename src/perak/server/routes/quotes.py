"""What a job would cost."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.views.market import offers_to_quote
from perak.domain.market import quote as domain
from perak.domain.units import format_money
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.writes import reply
from perak.wire.api import JobSubmit, MisfitView, OfferQuote, Quote
from perak.wire.jobfile import parse_job

router = APIRouter(tags=["jobs"])


@router.post("/v1/quotes", response_model=Quote)
async def get_quote(body: JobSubmit, request: Request, caller: Renter) -> Response:
    """The job's cost, power and carbon on each offer; nothing is stored or held."""
    services = services_of(request)
    spec = parse_job(body.job, workdir_digest=body.workdir)
    async with services.db.transaction() as tx:
        offers = await offers_to_quote(tx.connection)
        available = await tx.ledger.wallet_available(caller.project)
    currency = services.identity.facts.currency
    quote = domain.quote(spec, offers, available=available, currency=currency, now=clock.now())
    return reply(
        Quote(
            currency=currency,
            max_duration_seconds=spec.limits.duration_seconds,
            hold=format_money(quote.hold),
            affordable=quote.affordable,
            offers=[_on_offer(item) for item in quote.offers],
        )
    )


def _on_offer(item: domain.OfferQuote) -> OfferQuote:
    ask = item.offer.ask
    return OfferQuote(
        offer=item.offer.id,
        node_name=item.offer.node_name,
        region=ask.region,
        device=item.device,
        fits=item.fits,
        misfits=[
            MisfitView(dimension=m.dimension, needed=m.needed, available=m.available, now_only=m.now_only)
            for m in item.misfits
        ],
        price=_money(item.price),
        per_hour=_money(item.per_hour),
        cost_max=_money(item.cost_max),
        energy_watts=item.watts,
        carbon_grams_per_hour=item.carbon_grams_per_hour,
        carbon_source=item.carbon_source,
        tier=item.sandbox.tier,
        grants=list(ask.grants),
        unenforced=item.sandbox.unenforced,
        cloud_comparison=item.cloud_comparison,
    )


def _money(micros: int | None) -> str | None:
    return None if micros is None else format_money(micros)
