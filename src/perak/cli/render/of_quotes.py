"""What a job would cost, and where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from perak.cli.render.parts import figure, new_table, plain, short_id
from perak.domain.units import format_duration

if TYPE_CHECKING:
    from perak.wire import api


def quote(quoted: api.Quote) -> RenderableType:
    fitting = [offer for offer in quoted.offers if offer.fits]
    misfits = [offer for offer in quoted.offers if not offer.fits]
    parts: list[RenderableType] = []
    if fitting:
        parts.append(_fitting(fitting, quoted))
    else:
        none = (
            "No offer fits this job as things are." if misfits else "There is no offer on this exchange yet."
        )
        parts.append(Text(none, style="yellow"))
    if misfits:
        parts += [Text(), _misfits(misfits)]
    funds = "which the wallet covers" if quoted.affordable else "which the wallet does not cover"
    hold = f"{quoted.hold} {quoted.currency} will be held, {funds}; what is not used comes back."
    longest = format_duration(quoted.max_duration_seconds)
    if fitting:
        parts += [Text(), Text(f"At most: the cost of its max_duration, {longest}.")]
    compared = {offer.cloud_comparison: None for offer in fitting if offer.cloud_comparison}
    parts += [plain(line) for line in compared]
    parts += [Text(), Text(hold, style="" if quoted.affordable else "red"), Text(quoted.trust, style="dim")]
    return Group(*parts)


def _fitting(offers: Sequence[api.OfferQuote], quoted: api.Quote) -> Table:
    money = (">PRICE", f">{quoted.currency}/h", ">AT MOST")
    columns = ("OFFER", "NODE", "REGION", "DEVICE", *money, ">WATTS", ">gCO2e/h", "SANDBOX", "NOT ENFORCED")
    table = new_table(*columns)
    for offer in offers:
        table.add_row(
            short_id(offer.offer),
            plain(offer.node_name),
            plain(offer.region),
            plain(offer.device),
            offer.price or "-",
            offer.per_hour or "-",
            offer.cost_max or "-",
            figure(offer.energy_watts),
            figure(offer.carbon_grams_per_hour),
            plain(offer.tier),
            plain(", ".join(offer.unenforced) or "-"),
        )
    return table


def _misfits(offers: Sequence[api.OfferQuote]) -> Table:
    table = new_table("DOESN'T FIT", "NODE", "DEVICE", "IN", ">NEEDS", ">HAS", "")
    for offer in offers:
        for index, misfit in enumerate(offer.misfits):
            first = index == 0
            table.add_row(
                short_id(offer.offer) if first else "",
                plain(offer.node_name) if first else "",
                plain(offer.device) if first else "",
                plain(misfit.dimension),
                plain(misfit.needed),
                plain(misfit.available),
                "now only: it waits for room" if misfit.now_only else "",
            )
    return table
