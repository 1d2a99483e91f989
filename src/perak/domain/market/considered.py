"""What the market saw beside the offer that it gave a job, kept with the placement: a few lines of facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from operator import itemgetter

from perak.domain.carbon.placement import YEARLY_GRID, Grid
from perak.domain.market.expect import devices_for
from perak.domain.market.feasible import misfits, price_for
from perak.domain.market.match import PendingJob, View
from perak.domain.market.quote import class_of
from perak.domain.offer import Offer
from perak.domain.units import format_money

LOOKED_AT_MAX = 16
"""Other offers that are judged for the record, of the lowest ask first: each costs tens of microseconds."""
KEPT_MAX = 5
"""Those that the job would have liked next: enough to see what decided, small enough for every placement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """Another offer as it was when a job was placed.

    `price`: its ask in micro-units per device-hour. `more`: cost, carbon and delay of the job there above
    those where it was placed, in micro-units; None: nothing was known of its work, or it did not fit.
    `misfit`: in what it did not fit, in words; empty: it fitted.
    """

    node_name: str
    market_class: str
    price: int
    more: int | None = None
    misfit: str = ""

    def line(self, currency: str) -> str:
        """For people."""
        where, price = f"{self.node_name} ({self.market_class})", format_money(self.price, currency)
        if self.misfit:
            return f"{where}: {self.misfit}"
        said = f"{where}: fitted, at {price} per device-hour"
        if self.more is None:
            return said
        by = format_money(abs(self.more), currency)
        if self.more <= 0:
            return f"{said}; {by} less in cost, carbon and delay, but taken before or left for its fullness"
        return f"{said}; {by} more in cost, carbon and delay for the job"


def considered(
    job: PendingJob, chosen: Offer, offers: Sequence[Offer], *, now: datetime, grid: Grid = YEARLY_GRID
) -> tuple[Considered, ...]:
    """The offers beside `chosen` that the job would have liked next, KEPT_MAX at most, the best first.

    `offers`: as the market saw them when the round began. Those that fit come before those that do not.
    """
    view = View(job, now=now, grid=grid)
    own = price_for(job.spec, chosen)
    assert own is not None, "a granted offer has a price"
    here = view.burden(chosen, own)
    priced = (
        (price, each.id, each)
        for each in offers
        if each.id != chosen.id and (price := price_for(job.spec, each)) is not None
    )
    known = job.spec.work is not None or bool(job.past)
    ranked = []
    for price, id, offer in nsmallest(LOOKED_AT_MAX, priced, key=itemgetter(0, 1)):
        wrong = misfits(job.spec, offer, now=now)
        more = float(price) if wrong else view.burden(offer, price) - here
        found = Considered(
            node_name=offer.node_name,
            market_class=class_of(offer, devices_for(job.spec, offer) or ()),
            price=price,
            more=round(more) if known and not wrong else None,
            misfit="; ".join(map(str, wrong)),
        )
        ranked.append((bool(wrong), more, id, found))
    return tuple(found for *_, found in nsmallest(KEPT_MAX, ranked, key=itemgetter(0, 1, 2)))
