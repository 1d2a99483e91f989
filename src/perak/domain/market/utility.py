"""What a renter's preference amounts to in money, and how much a placement is worth to them.

utility = value - cost - carbon_price x kg - delay_cost x h. Money is integer micro-units of the exchange's
currency; a utility is a float of them, as it only ranks and is never booked.
"""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.errors import InvalidInput
from perak.domain.job import JobSpec, Preference
from perak.domain.units import MICROS, format_money

GRAMS_PER_KG = 1000

PRESETS: dict[str, Preference] = {
    "cheapest": Preference(name="cheapest"),
    "balanced": Preference(
        name="balanced", carbon_price_per_kg=MICROS // 10, delay_cost_per_hour=MICROS // 5
    ),
    "fastest": Preference(name="fastest", delay_cost_per_hour=20 * MICROS),
    "greenest": Preference(name="greenest", carbon_price_per_kg=10 * MICROS),
}
"""Balanced: 100 a tonne of CO2, of the order of what emitters in Europe pay, and a fifth of a unit an hour,
about the price of one second-hand card. Fastest: more than any card costs an hour. Greenest: a hundred times
the balanced price, so that 250 W on a grid of 400 g/kWh weigh 1.00 an hour, several times a card's price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What to expect of the job at one place: hours, micro-units, and grams of CO2e; None: not known."""

    hours: float
    cost: float
    carbon_grams: float | None = None


def preset(name: str) -> Preference:
    """The prices that a preset stands for. Raises InvalidInput."""
    if name not in PRESETS:
        raise InvalidInput(f"{name[:40]!r} is no preference; they are {', '.join(PRESETS)}")
    return PRESETS[name]


def value_of(spec: JobSpec) -> int | None:
    """What the finished job is worth in micro-units: as said, else max_cost; None: no bound was given."""
    return spec.preference.value if spec.preference.value is not None else spec.limits.max_cost


def burden(preference: Preference, outlook: Outlook) -> float:
    """Cost, carbon and delay together in micro-units: what the value must exceed. The least is the best.

    Carbon that is not known weighs nothing: it is said to be unknown beside it.
    """
    kg = (outlook.carbon_grams or 0.0) / GRAMS_PER_KG
    return outlook.cost + preference.carbon_price_per_kg * kg + preference.delay_cost_per_hour * outlook.hours


def utility(spec: JobSpec, outlook: Outlook) -> float | None:
    """Micro-units that the renter is better off by; None where no value bounds it."""
    value = value_of(spec)
    return None if value is None else value - burden(spec.preference, outlook)


def is_cheapest(preference: Preference) -> bool:
    """Whether money alone decides."""
    return not preference.carbon_price_per_kg and not preference.delay_cost_per_hour


def weights(preference: Preference, *, currency: str = "") -> str:
    """What offers are ranked by: ``cost + 0.10 per kg CO2e + 0.20 per hour of delay (balanced)``."""
    unit = f" {currency}" if currency else ""
    carbon, delay = preference.carbon_price_per_kg, preference.delay_cost_per_hour
    parts = ["cost"]
    if carbon:
        parts.append(f"{format_money(carbon)}{unit} per kg CO2e")
    if delay:
        parts.append(f"{format_money(delay)}{unit} per hour of delay")
    name = preference.name or ("cheapest" if is_cheapest(preference) else "your prices")
    return f"{' + '.join(parts)}{' alone' if len(parts) == 1 else ''} ({name})"


def burden_parts(preference: Preference, outlook: Outlook) -> tuple[int, int, int]:
    """(cost, carbon, delay) of `burden`, each rounded to whole micro-units, for showing."""
    carbon = Outlook(hours=0.0, cost=0.0, carbon_grams=outlook.carbon_grams)
    delay = Outlook(hours=outlook.hours, cost=0.0)
    return round(outlook.cost), round(burden(preference, carbon)), round(burden(preference, delay))
