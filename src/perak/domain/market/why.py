"""Why a job is where it is, or why it waits, and the price that would place it now; in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from perak.domain.job import JobSpec
from perak.domain.market.considered import Considered
from perak.domain.market.quote import OfferQuote, Quote
from perak.domain.market.utility import weights
from perak.domain.units import format_duration, format_money

LINES_MAX = 20
"""Offers that are told of one by one; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The lease that a job has or had last: price in micro-units per device-hour, and what was foretold.

    `beside`: the offers that it would have liked next, as they were then; None: that was not kept.
    """

    offer: str
    node_name: str
    price: int
    forecast_seconds: float | None = None
    forecast_source: str | None = None
    at: datetime | None = None
    beside: tuple[Considered, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """`reasons`: the answer, line by line; `then`: of the offers that it would have liked next when it was
    placed, None where that was not kept; `elsewhere`: of each other offer why not, as it is now; `price_now`:
    the least price per device-hour in micro-units that would place a waiting job at once, None where no price
    would."""

    reasons: tuple[str, ...]
    elsewhere: tuple[str, ...]
    then: tuple[str, ...] | None = None
    price_now: int | None = None


def why_placed(spec: JobSpec, placed: Placed, quote: Quote, *, currency: str) -> Why:
    """Why there: by the offers as they were then, where that was kept, and as they are now."""
    reasons = [
        f"it was given to {placed.node_name} at {format_money(placed.price, currency)} per device-hour",
        f"offers are ranked by {weights(spec.preference, currency=currency)}; "
        "of equal ones the fullest is taken",
    ]
    if placed.forecast_seconds is not None:
        reasons.append(
            f"it was expected to take {format_duration(placed.forecast_seconds)}, by {placed.forecast_source}"
        )
    others = [each for each in quote.offers if each.offer.id != placed.offer]
    here = next((each for each in quote.offers if each.offer.id == placed.offer), None)
    then = None if placed.beside is None else tuple(each.line(currency) for each in placed.beside)
    return Why(reasons=tuple(reasons), elsewhere=_lines(others, here, currency), then=then)


def why_waiting(
    spec: JobSpec,
    quote: Quote,
    *,
    currency: str,
    waited_seconds: float,
    deferred_until: str | None = None,
) -> Why:
    """Why it waits, what would have to change, and the price that would place it now."""
    fitting = [each for each in quote.offers if each.fits]
    reasons: list[str] = []
    if deferred_until is not None:
        reasons.append(deferred_until)
    elif fitting and not quote.affordable:
        reasons.append(
            f"{_counted(len(fitting), 'fits', 'fit')}, but the wallet does not cover the "
            f"{format_money(quote.hold, currency)} to hold"
        )
    elif fitting:
        reasons.append(f"{_counted(len(fitting), 'fits', 'fit')}: the next round of the market places it")
    elif not quote.offers:
        reasons.append("there is no offer on this exchange yet")
    else:
        reasons.append("no offer fits it now")
    if busy := [each for each in quote.offers if not each.fits and all(m.now_only for m in each.misfits)]:
        reasons.append(
            f"{_counted(len(busy), 'would fit', 'would fit')} once there is room or it is open again"
        )
    reasons += [f"with {each}" for each in quote.relaxations]
    reasons.append(f"it has waited for {format_duration(waited_seconds)}")
    return Why(
        reasons=tuple(reasons),
        elsewhere=_lines(quote.offers, None, currency),
        price_now=_price_now(spec, quote),
    )


def _price_now(spec: JobSpec, quote: Quote) -> int | None:
    """The least ask of the offers that fit now but for the price."""
    prices = [
        each.price
        for each in quote.offers
        if each.price is not None and all(misfit.dimension == "price" for misfit in each.misfits)
    ]
    return min(prices, default=None)


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} offer {one}" if number == 1 else f"{number} offers {more}"


def _lines(others: Sequence[OfferQuote], here: OfferQuote | None, currency: str) -> tuple[str, ...]:
    lines = [
        f"{each.offer.node_name} ({each.market_class}): {_reason(each, here, currency)}" for each in others
    ]
    more = len(lines) - LINES_MAX
    return (*lines[:LINES_MAX], f"and {more} more") if more > 0 else tuple(lines)


def _reason(each: OfferQuote, here: OfferQuote | None, currency: str) -> str:
    if each.misfits:
        return "; ".join(map(str, each.misfits))
    price = "no price" if each.price is None else f"{format_money(each.price, currency)} per device-hour"
    if here is None or each.burden is None or here.burden is None:
        return f"fits, at {price}"
    if each.burden > here.burden:
        more = format_money(round(each.burden - here.burden), currency)
        over = "for the job" if each.expected.seconds is not None else "for an hour of work"
        return f"fits, at {price}; {more} more in cost, carbon and delay {over}"
    return f"fits now, at {price}; no worse, but the job was placed before or by fullness"
