"""Old or new: below which grid intensity is a used card the greener choice for a piece of work?

A new card has to be made, the used one exists; the used one may draw more for the same work. So

    N = making the new one's share of the work / ((kWh of the used - kWh of the new) x PUE)

in g CO2e per kWh: below N the used card emits less. Where it draws no more, it is greener on any grid. Making
is a range, and where the speeds are known from data sheets alone, so is the time; N is then a range, too.
The used card's own making is not counted: it was spent by whoever bought it new, and buying another undoes
none of it. A data sheet's peak flatters the new card: few jobs fill it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from statistics import geometric_mean

from perak.domain.carbon.embodied import CARDS_MAX, gpu_range
from perak.domain.errors import InvalidInput
from perak.domain.facts.embodied import LIFE_YEARS_LONG, LIFE_YEARS_SHORT
from perak.domain.facts.epochs import EPOCHS, SOURCE
from perak.domain.facts.power import GPU_TRAINING_SHARE, PUE_UNKNOWN
from perak.domain.footprint import JOULES_PER_KWH, SECONDS_PER_YEAR
from perak.domain.hardware.specs import GpuSpec, find_gpu

NEW_CARDS = ("L4", "L40S", "RTX 6000 Ada", "H100", "H200")
"""What is sold new for AI and may be compared with where the renter names none (autumn 2026)."""
SHEETS = "data sheets: compute and memory bandwidth, each alone"
USED, NEW, UNCERTAIN = "used", "new", "uncertain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A used and a new card at the same work: the new one's time over the used one's, and mean watts of each.

    `ratios`: what the ratio of times may be; one where it was measured.
    """

    used: str
    new: str
    ratios: tuple[float, ...]
    used_watts: float
    new_watts: float
    basis: str

    @property
    def typical_ratio(self) -> float:
        return geometric_mean(self.ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """g/kWh at which both emit the same, lowest and highest; None: the used card draws less, on any grid.

    `verdict`: which of USED, NEW and UNCERTAIN it is at `here` g/kWh.
    """

    pair: Pair
    low: float | None
    high: float | None
    here: float
    pue: float
    new_kg: tuple[float, float]
    sources: tuple[str, ...]
    verdict: str

    @property
    def line(self) -> str:
        """The break-even in one line, as a quote shows it; between its ends it can't be said."""
        pair, here = self.pair, f"here it is {self.here:.0f}"
        if self.low is None:
            return f"greener than a new {pair.new} on any grid: it needs no more energy; {here} g/kWh"
        doubt = "perhaps on any grid" if self.high is None else f"not above {self.high:.0f}"
        return f"greener than a new {pair.new} below {self.low:.0f} g/kWh, {doubt}; {here}"


def measured_pair(used: str, new: str, workload: str) -> Pair:
    """Both cards at a workload that was measured on both. Raises InvalidInput."""
    names = sorted({row[0] for row in EPOCHS})
    known = [name for name in names if name.lower().startswith(workload.strip().lower())]
    if not workload.strip() or not known:
        raise InvalidInput(f"{workload!r} was not measured; these were: {', '.join(names)}")
    rows = {card: _epochs(card, known[0]) for card in (used, new)}
    missing = [card for card, row in rows.items() if row is None]
    if missing:
        cards = ", ".join(dict.fromkeys(row[1] for row in EPOCHS))
        raise InvalidInput(f"{known[0]} was not measured on {missing[0]!r}; it was on {cards}")
    (used_s, used_w), (new_s, new_w) = (rows[used] or (1, 1)), (rows[new] or (1, 1))
    return Pair(
        used=used,
        new=new,
        ratios=(new_s / used_s,),
        used_watts=used_w,
        new_watts=new_w,
        basis=f"{known[0]}, {SOURCE}",
    )


@lru_cache(maxsize=CARDS_MAX)
def sheet_pair(
    used: str, new: str, *, used_watts: float | None = None, memory_bytes: int | None = None
) -> Pair:
    """Both cards by their data sheets; `used_watts`: what the used one drew. Raises InvalidInput."""
    old_spec, new_spec = find_gpu(used, memory_bytes=memory_bytes), find_gpu(new)
    for name, spec in ((used, old_spec), (new, new_spec)):
        if spec is None:
            raise InvalidInput(f"{name[:60]!r} is no GPU that is known here")
    assert old_spec is not None
    assert new_spec is not None
    return Pair(
        used=used,
        new=new_spec.model,
        ratios=_sheet_ratios(old_spec, new_spec),
        used_watts=used_watts or GPU_TRAINING_SHARE * old_spec.tdp_watts,
        new_watts=GPU_TRAINING_SHARE * new_spec.tdp_watts,
        basis=SHEETS,
    )


@lru_cache(maxsize=CARDS_MAX)
def new_card_for(used: str, *, memory_bytes: int | None = None) -> str | None:
    """The smallest of NEW_CARDS that has the used card's memory and peak rate, and is younger; else None."""
    old = find_gpu(used, memory_bytes=memory_bytes)
    if old is None:
        return None
    for spec in (found for name in NEW_CARDS if (found := find_gpu(name)) is not None):
        if spec.memory_gib >= old.memory_gib and spec.year > old.year and _rate(spec) >= _rate(old):
            return spec.model
    return None


def break_even(pair: Pair, *, here: float, pue: float = PUE_UNKNOWN) -> BreakEven:
    """The break-even of a pair, and the verdict at `here` g/kWh."""
    low_kg, high_kg, sources = gpu_range(pair.new)
    making = (
        low_kg * 1000 / (LIFE_YEARS_LONG * SECONDS_PER_YEAR),
        high_kg * 1000 / (LIFE_YEARS_SHORT * SECONDS_PER_YEAR),
    )
    found = [
        _at(pair, grams_per_second, ratio, pue) for grams_per_second, ratio in product(making, pair.ratios)
    ]
    finite = [each for each in found if each is not None]
    low = min(finite, default=None)
    high = max(finite) if finite and len(finite) == len(found) else None
    verdict = NEW if high is not None and here > high else UNCERTAIN
    if low is None or here <= low:
        verdict = USED
    return BreakEven(
        pair=pair,
        low=low,
        high=high,
        here=here,
        pue=pue,
        new_kg=(low_kg, high_kg),
        sources=sources,
        verdict=verdict,
    )


def advice(
    used: str,
    *,
    here: float,
    new: str | None = None,
    workload: str | None = None,
    used_watts: float | None = None,
    memory_bytes: int | None = None,
    pue: float = PUE_UNKNOWN,
) -> BreakEven | None:
    """The break-even against `new`, or else against the smallest new card that would do the same work.

    None where nothing newer has the memory, or nothing is known of the card.
    """
    if workload is not None:
        return break_even(measured_pair(used, new or "A40", workload), here=here, pue=pue)
    new = new or new_card_for(used, memory_bytes=memory_bytes)
    if new is None:
        return None
    pair = sheet_pair(used, new, used_watts=used_watts, memory_bytes=memory_bytes)
    return break_even(pair, here=here, pue=pue)


def _at(pair: Pair, making: float, ratio: float, pue: float) -> float | None:
    """N for one second of the used card; None: the used card draws no more."""
    more_kwh = (pair.used_watts - pair.new_watts * ratio) / JOULES_PER_KWH * pue
    return making * ratio / more_kwh if more_kwh > 0 else None


def _epochs(card: str, workload: str) -> tuple[float, float] | None:
    spec = find_gpu(card)
    model = card if spec is None else spec.model
    return next((row[2:4] for row in EPOCHS if row[0] == workload and row[1] == model), None)


def _sheet_ratios(old: GpuSpec, new: GpuSpec) -> tuple[float, ...]:
    """The new card's time over the used one's, were compute or were memory all that counts."""
    ratios = [old.bandwidth_gbs / new.bandwidth_gbs]
    if _rate(old) and _rate(new):
        ratios.append(_rate(old) / _rate(new))
    return tuple(sorted(ratios))


def _rate(spec: GpuSpec) -> float:
    """Peak TFLOP/s at FP16, or at FP32 on a card that is no slower there; 0: its maker tells none."""
    return max(spec.best_fp16_tflops or 0.0, spec.fp32_tflops or 0.0)
