"""A job's bill on an offer beside its bills elsewhere: the least of each kind of seller, by a dated table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from perak.domain.facts.prices import EGRESS, HYPERSCALER, PRICES, SPECIALIST, SPOT
from perak.domain.hardware.specs import GpuSpec, find_gpu
from perak.domain.hardware.speeds import sheet_speeds, time_ratio
from perak.domain.units import SECONDS_PER_HOUR, format_money

CURRENCY = "USD"
"""The currency of the table; offers in another are not compared, because rates change by the day."""
COMPARED = (HYPERSCALER, SPOT, SPECIALIST)
"""What a renter could have taken instead: marketplaces are what this is one of."""
COMPARABLE_TIME = 1.5
"""Comparable throughput: the job takes at most this many times as long there, or here."""
MEMORY_SHARE = 0.95
"""Makers count a card's memory in GiB and people ask for it in GB; so much of what is asked for will do."""
WORDS = {
    HYPERSCALER: "the cheapest hyperscaler on demand",
    SPOT: "its spot",
    SPECIALIST: "the cheapest specialist",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The least bill of one kind of seller for the same job. Money in micro-units of CURRENCY.

    `seller` None: no comparable offer is in the table; then the rest says nothing. `points`: how many
    comparable prices it is the least of. `saving`: what the offer's bill is below it; negative: above.
    """

    kind: str
    seller: str | None = None
    gpu: str = ""
    bill: int = 0
    saving: int = 0
    points: int = 0
    date: str = ""
    source: str = ""

    @property
    def saving_percent(self) -> int:
        """Whole percent of their bill, rounded down, so that no claim is rounded in our favour."""
        return self.saving * 100 // self.bill if self.bill else 0

    def __str__(self) -> str:
        if self.seller is None:
            return f"{WORDS[self.kind]}: no comparable offer"
        percent = self.saving_percent
        by = f"{percent}% less" if percent >= 0 else f"{-percent}% more"
        of = f"{self.points} {'price' if self.points == 1 else 'prices'}"
        return f"{by} than {WORDS[self.kind]} ({self.seller}, {format_money(self.bill)}, {self.date}; {of})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One job's bill here and elsewhere. `hours` is what it takes here; 1 where that is not known."""

    bill: int
    hours: float
    per_hour: bool
    alternatives: tuple[Alternative, ...]

    def __str__(self) -> str:
        what = "an hour" if self.per_hour else "the job"
        parts = "; ".join(map(str, self.alternatives))
        return f"{format_money(self.bill)} {CURRENCY} for {what}: {parts}"


def compare(
    gpu: str,
    *,
    count: int,
    bill: int,
    currency: str,
    hours: float | None,
    memory_bytes: int | None = None,
    memory_needed: int = 0,
    outputs_bytes: int = 0,
) -> Comparison | None:
    """The job on `count` of `gpu` at `bill` micro-units, beside what each kind of seller would bill for it.

    `bill` includes the work that is expected to be lost; elsewhere none is counted, nor the disk, as no dated
    figures are known: both err in the others' favour. `hours` None: an hour's bills are compared. What leaves
    a hyperscaler (`outputs_bytes`) is on its bill. None: another currency, or a GPU not in the tables.
    """
    spec = find_gpu(gpu, memory_bytes=memory_bytes)
    if spec is None or currency != CURRENCY or bill < 0:
        return None
    length = hours if hours is not None else 1.0
    alternatives = tuple(
        _least(
            kind,
            spec,
            bill=bill,
            hours=length * count,
            memory_needed=memory_needed,
            outputs_bytes=outputs_bytes,
        )
        for kind in COMPARED
    )
    return Comparison(bill=bill, hours=length, per_hour=hours is None, alternatives=alternatives)


def _least(
    kind: str, spec: GpuSpec, *, bill: int, hours: float, memory_needed: int, outputs_bytes: int
) -> Alternative:
    """The least bill of one kind of seller for `hours` GPU-hours on `spec`."""
    leaving = math.ceil(outputs_bytes / 1e9 * EGRESS[0]) if kind in (HYPERSCALER, SPOT) else 0
    bills = [
        (math.floor(price * hours * ratio) + leaving, seller, variant, date, source)
        for seller, variant, price, date, source, ratio, memory in _comparable(kind, spec)
        if memory >= memory_needed * MEMORY_SHARE
    ]
    if not bills:
        return Alternative(kind=kind)
    least, seller, variant, date, source = min(bills)
    return Alternative(
        kind=kind,
        seller=seller,
        gpu=variant,
        bill=least,
        saving=least - bill,
        points=len(bills),
        date=date,
        source=source,
    )


@lru_cache(maxsize=1024)
def _comparable(kind: str, spec: GpuSpec) -> tuple[tuple[str, str, int, str, str, float, int], ...]:
    """(seller, variant, price, date, source, time there over time here, memory) of comparable throughput."""
    here = sheet_speeds(spec.variant)
    found = []
    for row_kind, seller, variant, price, date, source in PRICES:
        there, known = sheet_speeds(variant), find_gpu(variant)
        if row_kind != kind or here is None or there is None or known is None:
            continue
        ratio = time_ratio(reference=here, target=there).expected
        if 1 / COMPARABLE_TIME <= ratio <= COMPARABLE_TIME:
            found.append((seller, variant, price, date, source, ratio, known.memory_gib * 2**30))
    return tuple(found)


def band(gpu: str, *, memory_bytes: int | None = None) -> tuple[int, int, int] | None:
    """(least, most, how many) marketplace and specialist prices of the very GPU in the table, per hour."""
    spec = find_gpu(gpu, memory_bytes=memory_bytes)
    if spec is None:
        return None
    prices = [
        price
        for kind, _, variant, price, _, _ in PRICES
        if kind not in (HYPERSCALER, SPOT) and variant == spec.variant
    ]
    return (min(prices), max(prices), len(prices)) if prices else None


def compare_receipt(said: Mapping[str, Any]) -> Comparison | None:
    """What the run of a receipt would have cost elsewhere, by the table of today; None: nothing to compare.

    It is no part of what is signed: anyone who has the receipt and the table can say it again.
    """
    device, seconds = said.get("device"), said.get("billed_seconds")
    if not isinstance(device, Mapping) or not device.get("uuids") or not seconds:
        return None
    return compare(
        str(device.get("model", "")),
        count=len(device["uuids"]),
        bill=int(said.get("cost_micros") or 0),
        currency=str(said.get("currency", "")),
        hours=seconds / SECONDS_PER_HOUR,
    )
