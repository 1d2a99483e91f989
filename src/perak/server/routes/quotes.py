"""What a job would cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.quotes import PgQuotes
from perak.adapters.db.workloads import PgWorkloads
from perak.app.effects import Effect
from perak.app.quotes import expected, hold
from perak.domain.errors import InvalidInput
from perak.domain.hardware.prices import Comparison
from perak.domain.job import Preference
from perak.domain.market import quote as domain
from perak.domain.market.defer import Verdict
from perak.domain.market.history import fingerprint
from perak.domain.market.utility import is_cheapest, weights
from perak.domain.units import format_money
from perak.server import clock
from perak.server.access import services_of
from perak.server.auth import Renter
from perak.server.quoting import quoted
from perak.server.writes import reply, write
from perak.wire.api import (
    AlternativeView,
    ComparisonView,
    HeldQuote,
    JobSubmit,
    MisfitView,
    OfferQuote,
    PreferenceView,
    Quote,
    RelaxationView,
    WaitingView,
)
from perak.wire.jobfile import parse_job

router = APIRouter(tags=["jobs"])


@router.post("/v1/quotes", response_model=Quote)
async def get_quote(body: JobSubmit, request: Request, caller: Renter) -> Response:
    """The job's cost, time, power, carbon and risk on each offer; nothing is stored or held."""
    services = services_of(request)
    spec = parse_job(body.job, workdir_digest=body.workdir)
    currency = services.identity.facts.currency
    quote = await quoted(services, spec, caller)
    return reply(
        Quote(
            currency=currency,
            product=spec.product,
            window_start=None if spec.reserve is None else spec.reserve.start_at,
            window_end=None if spec.reserve is None else spec.reserve.end_at,
            preference=preference_view(spec.preference, currency),
            max_duration_seconds=spec.limits.duration_seconds,
            hold=format_money(quote.hold),
            affordable=quote.affordable,
            offers=[offer_quote_view(item) for item in quote.offers],
            waiting=None if quote.waiting is None else _waiting_view(quote, quote.waiting),
            relaxations=[
                RelaxationView(
                    changes=each.changes,
                    offers=each.offers,
                    price_from=_money(each.price_from),
                    text=str(each),
                )
                for each in quote.relaxations
            ],
        )
    )


@router.post("/v1/quotes/held", status_code=201, response_model=HeldQuote)
async def hold_quote(body: JobSubmit, request: Request, caller: Renter) -> Response:
    """Keep the best offer for the job for a minute, at its price; no money moves."""
    services = services_of(request)
    spec = parse_job(body.job, workdir_digest=body.workdir)

    if spec.reserve is not None:
        raise InvalidInput(
            "a window needs no held quote: submitting the job reserves it, at the price of `perak quote`"
        )

    async def action(tx: PgTransaction) -> tuple[HeldQuote, Sequence[Effect]]:
        await tx.single("market")  # No window and no match takes the part meanwhile.
        offers = await tx.offers.all_open()
        print_of = fingerprint(spec)
        known = await PgWorkloads(tx.connection).past([print_of], project=caller.project)
        past, grid = known.get(print_of, ()), services.context.grid.now
        held = await hold(
            tx,
            PgQuotes(tx.connection),
            caller=caller,
            spec=spec,
            offers=offers,
            new_id=services.context.new_id,
            now=clock.now(),
            past=past,
            grid=grid,
        )
        there = expected(held, spec, offers, past=past, grid=grid)
        name = next(each.node_name for each in offers if each.id == held.offer)
        return HeldQuote(
            id=held.id,
            offer=held.offer,
            node_name=name,
            price=format_money(held.price),
            currency=services.identity.facts.currency,
            expires_at=held.expires_at,
            expected_seconds=there.seconds,
            expected_cost=_money(there.cost),
            energy_watts=there.watts,
            energy_joules=there.joules,
            carbon_grams=there.carbon_grams,
            carbon_grams_per_hour=domain.hourly_grams(there),
            carbon_source=domain.carbon_source(there),
            failure_risk=there.failure_risk,
        ), ()

    return await write(request, action, project=caller.project, status=201)


def preference_view(wanted: Preference, currency: str) -> PreferenceView:
    return PreferenceView(
        name=wanted.name or ("cheapest" if is_cheapest(wanted) else None),
        carbon_price_per_kg=format_money(wanted.carbon_price_per_kg),
        delay_cost_per_hour=format_money(wanted.delay_cost_per_hour),
        value=_money(wanted.value),
        text=weights(wanted, currency=currency),
    )


def offer_quote_view(item: domain.OfferQuote) -> OfferQuote:
    ask, expected = item.offer.ask, item.expected
    known = expected.undisturbed
    return OfferQuote(
        offer=item.offer.id,
        node_name=item.offer.node_name,
        region=ask.region,
        device=item.device,
        market_class=item.market_class,
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
        region_evidence=item.offer.where.evidence,
        available_until=ask.available_until,
        reclaim_notice_seconds=ask.reclaim_notice_seconds,
        old_or_new=item.old_or_new,
        tier=item.sandbox.tier,
        grants=list(ask.grants),
        unenforced=item.sandbox.unenforced,
        cloud_comparison=None if item.comparison is None else str(item.comparison),
        comparison=None if item.comparison is None else _comparison_view(item.comparison),
        expected_seconds=expected.seconds,
        expected_seconds_low=expected.low_seconds,
        expected_seconds_high=expected.high_seconds,
        time_source=None if known is None else known.source,
        time_detail=None if known is None else known.detail,
        expected_cost=_money(expected.cost),
        lost_cost=_money(expected.lost_cost),
        energy_joules=expected.joules,
        carbon_grams=expected.carbon_grams,
        failure_risk=expected.failure_risk,
        burden=_rounded(item.burden),
        utility=_rounded(item.utility),
        pareto=item.pareto,
    )


def _waiting_view(quote: domain.Quote, verdict: Verdict) -> WaitingView:
    name = next(each.offer.node_name for each in quote.offers if each.offer.id == verdict.offer)
    waits, cost = verdict.wait_seconds > 0, verdict.saved_cost
    return WaitingView(
        offer=verdict.offer,
        node_name=name,
        start_at=clock.now() + timedelta(seconds=verdict.wait_seconds) if waits else None,
        saved_carbon_grams=verdict.saved_grams,
        saved_cost=None if cost is None else format_money(round(cost)),
        text=verdict.why,
    )


def _comparison_view(found: Comparison) -> ComparisonView:
    return ComparisonView(
        bill=format_money(found.bill),
        per_hour=found.per_hour,
        alternatives=[
            AlternativeView(
                kind=each.kind,
                seller=each.seller,
                gpu=each.gpu,
                bill=format_money(each.bill) if each.seller else None,
                saving=format_money(each.saving) if each.seller else None,
                saving_percent=each.saving_percent if each.seller else None,
                points=each.points,
                date=each.date,
                source=each.source,
                storage=format_money(each.storage) if each.seller else None,
                transfer=format_money(each.transfer) if each.seller else None,
            )
            for each in found.alternatives
        ],
        included=list(found.included),
        left_out=list(found.left_out),
        terms=found.terms,
    )


def _rounded(micros: float | None) -> str | None:
    return None if micros is None else format_money(round(micros))


def _money(micros: int | None) -> str | None:
    return None if micros is None else format_money(micros)
