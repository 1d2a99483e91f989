"""What a receipt says of energy and carbon, and the sums that anyone can do again from it alone.

Operational carbon is location-based: what was drawn, times the place's average intensity, times the site's
PUE. Making the hardware is a range apart, and what its reuse may have avoided is a third line, which may be
negative; neither is ever taken off the first. Moving the run's data is a fourth, in none of the others. The
score is that of the Software Carbon Intensity specification v1.1 (Green Software Foundation; ISO/IEC 21031):
((E x I) + M) per R.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from perak.domain.facts.power import NETWORK_KWH_PER_GB

JOULES_PER_KWH = 3_600_000
SECONDS_PER_YEAR = 365 * 24 * 3600
YEARLY_AVERAGE = "yearly average"
"""Where no feed knows the hours of the run: the region's average of a past year."""
HOURS_ON_RECEIPT_MAX = 31 * 24
"""A month; of longer runs the mean alone is written."""
RUN_UNIT = "run"
"""The functional unit where the renter names none."""

_RELATIVE, _ABSOLUTE = 1e-6, 1e-5
"""How far a figure may be off: every figure on a receipt is rounded to six decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Electricity of the run, by the named method; the uncertainty is plus or minus, in percent.

    `samples`: how many readings it rests on; `modelled`: the parts that nothing measured. None and empty
    where the node did not say: an agent of before.
    """

    joules: float
    method: str
    uncertainty_percent: float
    samples: int | None = None
    modelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HourCarbon:
    """An hour of the run (counted since 1970): what was drawn in it, the intensity, and its kind."""

    hour: int
    joules: float
    grams_per_kwh: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Carbon:
    """Operational emissions of the run: grams CO2e = kWh x g/kWh x PUE, with where the factor is from.

    `hours`: what the mean intensity is the mean of, weighted by energy. `region_evidence`: what supports the
    region. `note`: why a feed's figures are missing or old.
    """

    grams: float
    grams_per_kwh: float
    pue: float
    region: str
    method: str
    source: str
    year: int
    hours: tuple[HourCarbon, ...] = ()
    region_evidence: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodiedPart:
    """A thing that had to be made: how many of it or which share, kg CO2e of one, source ids."""

    what: str
    count: float
    low_kg: float
    high_kg: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embodied:
    """The run's share of making the hardware: kg x count x seconds over the expected life.

    The low end takes the long life, the high end the short one.
    """

    low_grams: float
    high_grams: float
    seconds: float
    life_years_short: float
    life_years_long: float
    parts: tuple[EmbodiedPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoided:
    """Making a new card's share for the same work, less that of the cards used; negative if these took more.

    `time_ratio`: the new card's time over the used one's; `basis`: how it is known.
    """

    low_grams: float
    high_grams: float
    instead_of: str
    time_ratio: float
    basis: str
    part: EmbodiedPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Sci:
    """SCI v1.1: ((E x I) + M) / R in grams CO2e per functional unit. E has the site's PUE in it."""

    energy_kwh: float
    grams_per_kwh: float
    embodied_low_grams: float
    embodied_high_grams: float
    unit: str
    count: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """CO2e of bringing the run's data to the node and back, as if the network's power came from where it ran.

    `received_bytes`: work folder and earlier jobs' outputs, as if nothing was on the node already;
    `sent_bytes`: the outputs; `run_bytes`: what the run itself sent and received. `uncounted`: what came from
    elsewhere, of a size that the exchange does not know. No site's PUE is in it.
    """

    received_bytes: int
    sent_bytes: int
    run_bytes: int
    kwh_per_gb_low: float
    kwh_per_gb_high: float
    grams_per_kwh: float
    low_grams: float
    high_grams: float
    source: str
    uncounted: tuple[str, ...] = ()


def moving_grams(
    size_bytes: int, *, grams_per_kwh: float, kwh_per_gb: tuple[float, float] = NETWORK_KWH_PER_GB
) -> tuple[float, float]:
    """(low, high) grams of moving so many bytes over the internet."""
    low, high = (size_bytes / 1e9 * each * grams_per_kwh for each in kwh_per_gb)
    return low, high


def embodied_grams(
    parts: tuple[EmbodiedPart, ...], *, seconds: float, life_years_short: float, life_years_long: float
) -> tuple[float, float]:
    """(low, high) grams of the parts over `seconds`."""
    low = math.fsum(part.count * part.low_kg for part in parts) * 1000 * seconds
    high = math.fsum(part.count * part.high_kg for part in parts) * 1000 * seconds
    return low / (life_years_long * SECONDS_PER_YEAR), high / (life_years_short * SECONDS_PER_YEAR)


def avoided_grams(embodied: Embodied, part: EmbodiedPart, *, time_ratio: float) -> tuple[float, float]:
    """(low, high) grams: the new part's share for its own time, less that of the GPUs that were used."""
    years = {"life_years_short": embodied.life_years_short, "life_years_long": embodied.life_years_long}
    used = tuple(each for each in embodied.parts if each.what != SERVER)
    own_low, own_high = embodied_grams(used, seconds=embodied.seconds, **years)
    new_low, new_high = embodied_grams((part,), seconds=embodied.seconds * time_ratio, **years)
    return new_low - own_high, new_high - own_low


SERVER = "server"
"""What the part of an `Embodied` is called that is no GPU."""


def sci(
    energy: Energy, carbon: Carbon, embodied: Embodied, *, unit: str = RUN_UNIT, count: float = 1.0
) -> Sci:
    """The score of a run that did `count` functional units."""
    energy_kwh = energy.joules / JOULES_PER_KWH * carbon.pue
    operational = energy_kwh * carbon.grams_per_kwh
    return Sci(
        energy_kwh=energy_kwh,
        grams_per_kwh=carbon.grams_per_kwh,
        embodied_low_grams=embodied.low_grams,
        embodied_high_grams=embodied.high_grams,
        unit=unit,
        count=count,
        low=(operational + embodied.low_grams) / count,
        high=(operational + embodied.high_grams) / count,
    )


def carbon_miscalculations(
    energy: Energy | None,
    carbon: Carbon | None,
    embodied: Embodied | None,
    avoided: Avoided | None,
    score: Sci | None,
    moved: Moved | None = None,
) -> list[str]:
    """Where the figures do not follow from each other, in words; empty: they do."""
    try:
        return _miscalculations(energy, carbon, embodied, avoided, score) + _moving(moved)
    except (OverflowError, ValueError, ZeroDivisionError):  # math.fsum of infinities, or of both signs
        return ["the figures are beyond all measure"]


def _miscalculations(
    energy: Energy | None,
    carbon: Carbon | None,
    embodied: Embodied | None,
    avoided: Avoided | None,
    score: Sci | None,
) -> list[str]:
    wrong: list[str] = []
    if carbon is not None:
        wrong += _operational(energy, carbon)
    if embodied is not None:
        wrong += _embodied(embodied)
    if avoided is not None:
        wrong += _avoided(embodied, avoided)
    if score is not None:
        wrong += _score(energy, carbon, embodied, score)
    return wrong


def _operational(energy: Energy | None, carbon: Carbon) -> list[str]:
    if energy is None:
        return ["there is carbon without energy"]
    wrong = []
    due = energy.joules / JOULES_PER_KWH * carbon.grams_per_kwh * carbon.pue
    # The intensity itself is rounded, and a large energy carries that on.
    slack = energy.joules / JOULES_PER_KWH * carbon.pue * 1e-6
    if not _same(carbon.grams, due, slack):
        wrong.append(f"energy x intensity x PUE is {due:.6f} g, and {carbon.grams:.6f} g is said")
    if carbon.hours:
        joules = math.fsum(each.joules for each in carbon.hours)
        weighted = math.fsum(each.joules * each.grams_per_kwh for each in carbon.hours)
        if not _same(joules, energy.joules, len(carbon.hours) * 1e-6):
            wrong.append(f"the hours' energy sums to {joules:.6f} J, not {energy.joules:.6f} J")
        factors = [each.grams_per_kwh for each in carbon.hours]
        # Each hour's energy is rounded: of a run of millijoules that moves the mean between the hours.
        slack = len(factors) * 1e-6 / joules * (max(factors) - min(factors)) if joules else 0.0
        if joules and not _same(carbon.grams_per_kwh, weighted / joules, slack):
            wrong.append(f"the hours' mean intensity is {weighted / joules:.6f} g/kWh")
    return wrong


def _embodied(embodied: Embodied) -> list[str]:
    low, high = embodied_grams(
        embodied.parts,
        seconds=embodied.seconds,
        life_years_short=embodied.life_years_short,
        life_years_long=embodied.life_years_long,
    )
    if _same(low, embodied.low_grams) and _same(high, embodied.high_grams) and low <= high:
        return []
    return [f"the embodied share comes to {low:.6f} to {high:.6f} g"]


def _avoided(embodied: Embodied | None, avoided: Avoided) -> list[str]:
    if embodied is None:
        return ["there is avoided carbon without embodied carbon"]
    low, high = avoided_grams(embodied, avoided.part, time_ratio=avoided.time_ratio)
    slack = abs(high) * 1e-5  # The ratio of times is rounded, too.
    if _same(low, avoided.low_grams, slack) and _same(high, avoided.high_grams, slack):
        return []
    return [f"what was avoided comes to {low:.6f} to {high:.6f} g"]


def _score(energy: Energy | None, carbon: Carbon | None, embodied: Embodied | None, score: Sci) -> list[str]:
    if energy is None or carbon is None or embodied is None or score.count <= 0:
        return ["there is an SCI score without what it is made of"]
    due = sci(energy, carbon, embodied, unit=score.unit, count=score.count)
    slack = (carbon.grams_per_kwh + due.energy_kwh) * 1e-6 / score.count
    if _same(score.low, due.low, slack) and _same(score.high, due.high, slack):
        return []
    return [f"the SCI score comes to {due.low:.6f} to {due.high:.6f} g per {score.unit}"]


def _moving(moved: Moved | None) -> list[str]:
    if moved is None:
        return []
    size = moved.received_bytes + moved.sent_bytes + moved.run_bytes
    factors = moved.kwh_per_gb_low, moved.kwh_per_gb_high
    low, high = moving_grams(size, grams_per_kwh=moved.grams_per_kwh, kwh_per_gb=factors)
    slack = size / 1e9 * (max(factors) + moved.grams_per_kwh) * 1e-6  # Factors and intensity are rounded.
    if _same(moved.low_grams, low, slack) and _same(moved.high_grams, high, slack):
        return []
    return [f"moving the data comes to {low:.6f} to {high:.6f} g"]


def _same(said: float, due: float, slack: float = 0.0) -> bool:
    return math.isclose(said, due, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE + abs(slack))
