"""A price for a provider: the floor that electricity sets, what the market pays, and when it breaks even."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perak.domain.carbon.energy import gpu_watts
from perak.domain.facts.power import GPU_IDLE_SHARE
from perak.domain.hardware.prices import CURRENCY, band
from perak.domain.hardware.specs import find_gpu
from perak.domain.units import BASIS_POINTS, format_money

HOURS_A_MONTH = 730.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketBand:
    """What was paid for the class lately, in micro-units per device-hour, and of how many trades."""

    p10: int
    median: int
    p90: int
    trades: int
    utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Money in micro-units per device-hour, the exchange's fee included; None: not known.

    `floor`: below it an hour of work costs more electricity than it earns. `price`: what to ask.
    `break_even`: the occupancy (0 to 1) from which that pays the electricity of waiting, too, and
    `monthly_cost` if given; above 1: never.
    """

    watts: float
    watts_source: str
    floor: int
    price: int
    reason: str
    break_even: float
    market: MarketBand | None
    elsewhere: tuple[int, int, int] | None

    def lines(self, currency: str) -> tuple[str, ...]:
        """For people."""
        said = [
            f"floor {format_money(self.floor, currency)}: electricity of {self.watts:.0f} W "
            f"({self.watts_source}) and the fee",
            f"suggested {format_money(self.price, currency)}: {self.reason}",
            "at that price it never breaks even"
            if self.break_even > 1
            else f"at that price it breaks even from {self.break_even:.0%} of the time in use",
        ]
        if self.market is not None:
            paid = self.market
            said.append(
                f"paid here: {format_money(paid.p10)} to {format_money(paid.p90)}, median "
                f"{format_money(paid.median)}, of {paid.trades} trades"
                + (f"; {paid.utilisation:.0%} in use" if paid.utilisation is not None else "")
            )
        else:
            said.append("paid here: not known, too few trades of this class")
        if self.elsewhere is not None and currency == CURRENCY:
            low, high, count = self.elsewhere
            said.append(
                f"asked elsewhere: {format_money(low)} to {format_money(high)}, of {count} dated prices"
            )
        return tuple(said)


def suggest(
    gpu: str,
    *,
    electricity_per_kwh: int,
    fee_basis_points: int,
    currency: str,
    measured_watts: Sequence[float] = (),
    memory_bytes: int | None = None,
    market: MarketBand | None = None,
    monthly_cost: int = 0,
) -> Suggestion | None:
    """A price for a GPU; None where neither its power was measured nor its model is known.

    `electricity_per_kwh` and `monthly_cost` (what the card costs whether it is used or not) in micro-units;
    `measured_watts`: means of runs on it.
    """
    watts, source = _watts(gpu, measured_watts, memory_bytes)
    if watts is None:
        return None
    kept = 1 - fee_basis_points / BASIS_POINTS
    busy = watts / 1000 * electricity_per_kwh
    floor = round(busy / kept)
    elsewhere = band(gpu, memory_bytes=memory_bytes)
    price, reason = _price(floor, market, elsewhere if currency == CURRENCY else None)
    idle = GPU_IDLE_SHARE * watts / 1000 * electricity_per_kwh + monthly_cost / HOURS_A_MONTH
    earned = price * kept - busy + GPU_IDLE_SHARE * watts / 1000 * electricity_per_kwh
    return Suggestion(
        watts=watts,
        watts_source=source,
        floor=floor,
        price=price,
        reason=reason,
        break_even=idle / earned if earned > 0 else 2.0,
        market=market,
        elsewhere=elsewhere,
    )


def _watts(gpu: str, measured: Sequence[float], memory_bytes: int | None) -> tuple[float | None, str]:
    if measured:
        ordered = sorted(measured)
        return ordered[len(ordered) // 2], f"median of {len(ordered)} measured runs"
    known = find_gpu(gpu, memory_bytes=memory_bytes)
    if known is None:
        return None, ""
    return gpu_watts(tdp_watts=float(known.tdp_watts)), "typical training, by its data sheet"


def _price(floor: int, market: MarketBand | None, elsewhere: tuple[int, int, int] | None) -> tuple[int, str]:
    """The market's median where there is one; a little below when much is idle, above when all is in use."""
    if market is not None:
        used = market.utilisation
        wanted, why = market.median, "the median that is paid here"
        if used is not None and used > 0.85:
            wanted, why = market.p90, "the upper end of what is paid here, as nearly all is in use"
        elif used is not None and used < 0.3:
            wanted, why = market.p10, "the lower end of what is paid here, as much is idle"
    elif elsewhere is not None:
        wanted, why = elsewhere[0], "the least that is asked elsewhere, as too few trades are known here"
    else:
        wanted, why = 2 * floor, "twice the floor, as nothing is known of what is paid for it"
    if wanted < floor:
        return floor, f"the floor; {why} ({format_money(wanted)}) would not pay the electricity"
    return wanted, why
