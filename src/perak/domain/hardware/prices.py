"""An offer's price beside what clouds charge for the same GPU."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.facts.prices import CLOUD_PRICES
from perak.domain.hardware.specs import find_gpu
from perak.domain.units import format_money

CURRENCY = "USD"
"""The currency of the table; offers in another are not compared, because rates change by the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudComparison:
    """How far a price per GPU-hour lies below the clouds', in percent; negative: above.

    Money in micro-units of CURRENCY. `spot` None: no spot price is known.
    """

    gpu: str
    median_micros: int
    median_cut_percent: int
    cheapest_micros: int
    cheapest_cut_percent: int
    spot_micros: int | None
    spot_cut_percent: int | None
    prices: int
    """How many hyperscaler prices the median is of."""
    date: str
    source: str

    def __str__(self) -> str:
        """The comparison in one line, spot price included, for people."""
        spot = "no spot price known"
        if self.spot_micros is not None and self.spot_cut_percent is not None:
            spot = f"{_cut(self.spot_cut_percent)} spot ({format_money(self.spot_micros)})"
        return (
            f"{_cut(self.median_cut_percent)} the hyperscalers' median ({format_money(self.median_micros)}), "
            f"{_cut(self.cheapest_cut_percent)} the cheapest ({format_money(self.cheapest_micros)}), {spot}; "
            f"{CURRENCY} per GPU-hour, {self.date}"
        )


def comparison(
    gpu: str, price_micros: int, *, currency: str, memory_bytes: int | None = None
) -> CloudComparison | None:
    """Compare `price_micros` per GPU-hour with the clouds'; None where there is nothing to compare with."""
    spec = find_gpu(gpu, memory_bytes=memory_bytes)
    if spec is None or currency != CURRENCY:
        return None
    for model, memory_gib, median, cheapest, spot, prices, date, source in CLOUD_PRICES:
        if (model, memory_gib) == (spec.model, spec.memory_gib):
            return CloudComparison(
                gpu=spec.variant,
                median_micros=median,
                median_cut_percent=_cut_percent(price_micros, median),
                cheapest_micros=cheapest,
                cheapest_cut_percent=_cut_percent(price_micros, cheapest),
                spot_micros=spot,
                spot_cut_percent=None if spot is None else _cut_percent(price_micros, spot),
                prices=prices,
                date=date,
                source=source,
            )
    return None


def _cut_percent(price: int, reference: int) -> int:
    """Whole percent below the reference, rounded down, so that no claim is rounded in our favour."""
    return (reference - price) * 100 // reference


def _cut(percent: int) -> str:
    return f"{percent}% below" if percent >= 0 else f"{-percent}% above"
