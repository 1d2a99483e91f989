"""What a job would cost, and where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perak.cli.render.parts import (
    Fitted,
    at_time,
    fact_table,
    figure,
    in_grams,
    in_joules,
    plain,
    short_device,
    short_id,
)
from perak.domain.units import format_duration

if TYPE_CHECKING:
    from perak.wire import api

NOTES_MAX = 5
"""Lines of one kind below the table; --json has them all."""


def quote(quoted: api.Quote) -> RenderableType:
    fitting = [offer for offer in quoted.offers if offer.fits]
    misfits = [offer for offer in quoted.offers if not offer.fits]
    parts: list[RenderableType] = []
    if fitting:
        parts += [_fitting(fitting, quoted), *_notes(fitting, quoted)]
    else:
        none = (
            "No offer fits this job as things are." if misfits else "There is no offer on this exchange yet."
        )
        parts.append(Text(none, style="yellow"))
    if misfits:
        parts += [Text(), _misfits(misfits)]
    if quoted.relaxations:
        parts += [Text(), Text("What would let more offers fit:", style="bold")]
        parts += [plain(f"  {each.text}") for each in quoted.relaxations]
    funds = "which the wallet covers" if quoted.affordable else "which the wallet does not cover"
    hold = f"{quoted.hold} {quoted.currency} will be held, {funds}; what is not used comes back."
    if quoted.window_start is not None and quoted.window_end is not None:
        span = f"from {at_time(quoted.window_start)} to {at_time(quoted.window_end)}"
        parts += [Text(), plain(f"Reserved {span}; the price is firm once it is submitted.")]
    parts += [Text(), Text(hold, style="" if quoted.affordable else "red"), Text(quoted.trust, style="dim")]
    return Group(*parts)


def _notes(fitting: Sequence[api.OfferQuote], quoted: api.Quote) -> list[RenderableType]:
    """What the figures rest on."""
    notes: list[RenderableType] = [Text()]
    if quoted.preference is not None:
        front = "*: no other is better in cost, time and carbon at once (the Pareto front)"
        notes.append(plain(f"Ranked by {quoted.preference.text}. {front}."))
    if quoted.waiting is not None:
        notes.append(plain(_waiting(quoted.waiting, quoted.currency)))
    sources = {offer.time_detail: None for offer in fitting if offer.time_detail}
    notes += [plain(f"Time: {detail}.") for detail in list(sources)[:NOTES_MAX]]
    if any(offer.expected_seconds is None for offer in fitting):
        notes.append(
            plain(
                "Time unknown: run it once, or say how much `work` it is: {device: V100, hours: 3} for "
                "GPUs, {device: cpu, hours: 3} for cores."
            )
        )
    longest = format_duration(quoted.max_duration_seconds)
    notes.append(plain(f"At most: the cost of its max_duration, {longest}."))
    unenforced = {
        f"Not enforced at {offer.node_name}: {', '.join(offer.unenforced)}. "
        f"`perak offer show {offer.node_name}` says why.": None
        for offer in fitting
        if offer.unenforced
    }
    notes += [plain(line) for line in list(unenforced)[:NOTES_MAX]]
    notes += [plain(line) for line in list(dict.fromkeys(filter(None, map(_end, fitting))))[:NOTES_MAX]]
    greener = {f"{offer.device}: {offer.old_or_new}": None for offer in fitting if offer.old_or_new}
    notes += [plain(line) for line in list(greener)[:NOTES_MAX]]
    compared = {offer.cloud_comparison: None for offer in fitting if offer.cloud_comparison}
    if not compared:
        notes.append(plain("Against clouds: no comparable offer in the price book, which is in USD."))
    terms = {offer.comparison.terms: None for offer in fitting if offer.comparison}
    return notes + [
        plain(line) for line in [*list(compared)[:NOTES_MAX], *filter(None, list(terms)[:NOTES_MAX])]
    ]


def _waiting(found: api.WaitingView, currency: str) -> str:
    """What the start window is expected to bring."""
    if found.start_at is None:
        return f"It starts now: {found.text}."
    saved: list[str] = []
    if found.saved_carbon_grams is not None:
        grams = found.saved_carbon_grams
        saved.append(f"{in_grams(abs(grams))} {'less' if grams >= 0 else 'more'}")
    if found.saved_cost is not None:
        more = found.saved_cost.startswith("-")
        saved.append(f"{found.saved_cost.lstrip('-')} {currency} {'more' if more else 'less'}")
    than_now = f", {' and '.join(saved)} than now" if saved else ""
    return f"It starts about {at_time(found.start_at)} at {found.node_name}{than_now}, by what is foretold."


def _end(offer: api.OfferQuote) -> str | None:
    """When the provider may take the machine back, as far as the offer says."""
    notice = format_duration(offer.reclaim_notice_seconds) if offer.reclaim_notice_seconds else None
    until = None if offer.available_until is None else f"until {at_time(offer.available_until)}"
    told = None if notice is None else f"its owner gives {notice} of notice before taking it back"
    said = "; ".join(each for each in (until, told) if each is not None)
    return f"{offer.node_name}: {said}." if said else None


def _fitting(offers: Sequence[api.OfferQuote], quoted: api.Quote) -> Fitted:
    money = (">PRICE", f">{quoted.currency}/h", ">EXPECTED", ">AT MOST")
    figures = (">TIME", ">BETWEEN", ">ENERGY", ">CO2e", ">RISK")
    rows = [
        (
            "*" if offer.pareto else "",
            short_id(offer.offer),
            plain(offer.node_name),
            plain(short_device(offer.market_class or f"{offer.device}, {offer.region}")),
            offer.price or "-",
            offer.per_hour or "-",
            offer.expected_cost or "-",
            offer.cost_max or "-",
            *_figures(offer),
            plain(offer.tier),
            plain(", ".join(offer.unenforced) or "-"),
        )
        for offer in offers
    ]
    columns = ("", "OFFER", "NODE", "CLASS", *money, *figures, "SANDBOX", "NOT ENFORCED")
    return Fitted(columns, rows, spare=("SANDBOX", ">PRICE", ">BETWEEN", "NOT ENFORCED", ">AT MOST", "OFFER"))


def _figures(offer: api.OfferQuote) -> tuple[str, str, str, str, str]:
    """Of the job; of an hour (/h) where its time is not known."""
    risk = "-" if offer.failure_risk is None else f"{offer.failure_risk:.1%}"
    if offer.expected_seconds is None:
        watts, grams = offer.energy_watts, offer.carbon_grams_per_hour
        return (
            "-",
            "-",
            "-" if watts is None else f"{watts:.3g} W",
            "-" if grams is None else f"{_carbon(grams)}/h",
            risk,
        )
    low, high = offer.expected_seconds_low, offer.expected_seconds_high
    between = "-" if low is None or high is None else f"{format_duration(low)}-{format_duration(high)}"
    energy = "-" if offer.energy_joules is None else in_joules(offer.energy_joules)
    return format_duration(offer.expected_seconds), between, energy, _carbon(offer.carbon_grams), risk


def _carbon(grams: float | None) -> str:
    return "-" if grams is None else in_grams(grams).removesuffix(" CO2e")


def _misfits(offers: Sequence[api.OfferQuote]) -> Fitted:
    rows = [
        (
            short_id(offer.offer) if not index else "",
            plain(offer.node_name) if not index else "",
            plain(short_device(offer.device)) if not index else "",
            plain(misfit.dimension),
            plain(misfit.needed),
            plain(misfit.available),
            "now only: it waits for room" if misfit.now_only else "",
        )
        for offer in offers
        for index, misfit in enumerate(offer.misfits)
    ]
    columns = ("DOESN'T FIT", "NODE", "DEVICE", "IN", "NEEDS", "HAS", "")
    return Fitted(columns, rows, spare=("DEVICE",))


def held_quote(held: api.HeldQuote) -> RenderableType:
    return fact_table(
        ("quote", held.id),
        ("node", plain(held.node_name)),
        ("price", f"{held.price} {held.currency} per device-hour"),
        ("until", at_time(held.expires_at)),
        ("expected", _expected(held)),
        ("carbon by", held.carbon_source),
        ("use it", f"perak run --quote {held.id} JOB.yaml"),
    )


def _expected(held: api.HeldQuote) -> str:
    """Of the job; of an hour where its time is not known."""
    if held.expected_seconds is None:
        watts, grams = held.energy_watts, held.carbon_grams_per_hour
        known = [] if watts is None else [f"{watts:.3g} W"]
        known += [] if grams is None else [f"{in_grams(grams)} an hour"]
        return ", ".join([*known, "how long is not known"])
    cost = [] if held.expected_cost is None else [f"{held.expected_cost} {held.currency}"]
    energy = [] if held.energy_joules is None else [in_joules(held.energy_joules)]
    carbon = [] if held.carbon_grams is None else [in_grams(held.carbon_grams)]
    return ", ".join([format_duration(held.expected_seconds), *cost, *energy, *carbon])


def why(answer: api.Why) -> RenderableType:
    parts: list[RenderableType] = [plain(f"{answer.job} is {answer.state}:")]
    parts += [plain(f"  {line}") for line in answer.reasons]
    if answer.price_now is not None:
        parts.append(plain(f"  {answer.price_now} {answer.currency} per device-hour would place it now"))
    if answer.then is not None and answer.placed_at is not None:
        title = f"Other offers when it was placed, {at_time(answer.placed_at)}:"
        none = "  there was no other with a price for it"
        parts += [Text(), Text(title, style="bold")]
        parts += [plain(f"  {line}") for line in answer.then] or [plain(none)]
    if answer.elsewhere:
        parts += [Text(), Text("Other offers, as they are now:", style="bold")]
        parts += [plain(f"  {line}") for line in answer.elsewhere]
    return Group(*parts)


def prices(found: api.Prices) -> RenderableType:
    columns = (
        "HOUR (UTC)", "CLASS", ">P10", ">MEDIAN", ">P90", ">TRADES", "", ">DEVICE-H", ">IN USE", ">OFFERS",
        ">BIDS", ">CANCELLED",
    )  # fmt: skip
    rows = [
        (
            f"{cell.hour:%Y-%m-%d %H:00}",
            plain(_class(cell)),
            cell.p10 or "-",
            cell.median or "-",
            cell.p90 or "-",
            str(cell.trades),
            "thin" if cell.thin else "",
            figure(cell.device_hours),
            "-" if cell.utilisation is None else f"{cell.utilisation:.0%}",
            str(cell.offers),
            str(cell.bids),
            str(cell.cancellations),
        )
        for cell in found.cells
    ]
    table = Fitted(columns, rows, spare=(">CANCELLED", ">OFFERS", ">DEVICE-H", ">BIDS", ">P10", ">P90"))
    lines = [
        plain(
            f"Foretold by {each.source}, over actual: median {each.median:.2f}, P90 {each.p90:.2f}; nine in "
            f"ten within a factor of {each.p90_factor:.2f}, {each.inside:.0%} in the interval; "
            f"{each.runs} runs."
        )
        for each in found.predictions
    ]
    return Group(table, *lines)


def _class(cell: api.PriceCell) -> str:
    graded = f", {cell.grade}" if cell.gpu else ""
    return f"{short_device(cell.model)}, {cell.region}{graded}"
