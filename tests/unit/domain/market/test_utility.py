"""What a preference amounts to in money."""

import pytest

from perak.domain.errors import InvalidInput
from perak.domain.job import JobSpec, Limits, Preference
from perak.domain.market.utility import (
    PRESETS,
    Outlook,
    burden,
    is_cheapest,
    preset,
    utility,
    value_of,
    weights,
)
from perak.domain.units import MICROS

SLOW = Outlook(hours=10, cost=1.0 * MICROS, carbon_grams=400)
FAST = Outlook(hours=2, cost=1.4 * MICROS, carbon_grams=900)
CLEAN = Outlook(hours=12, cost=1.5 * MICROS, carbon_grams=50)


def best(name: str) -> Outlook:
    return min((SLOW, FAST, CLEAN), key=lambda each: burden(PRESETS[name], each))


def test_presets_choose_what_their_names_say() -> None:
    assert (best("cheapest"), best("fastest"), best("greenest")) == (SLOW, FAST, CLEAN)
    assert best("balanced") == FAST  # Eight hours at 0.20 are more than the 0.40 that it costs more.


def test_a_burden_is_cost_carbon_and_delay() -> None:
    prices = Preference(carbon_price_per_kg=100_000, delay_cost_per_hour=500_000)

    assert burden(prices, SLOW) == pytest.approx(1_000_000 + 0.4 * 100_000 + 10 * 500_000)


def test_the_value_is_max_cost_unless_given() -> None:
    capped = JobSpec(name="a", run="b", limits=Limits(max_cost=3 * MICROS))
    valued = JobSpec(name="a", run="b", limits=capped.limits, preference=Preference(value=2 * MICROS))
    unbound = JobSpec(name="a", run="b")

    assert (value_of(capped), value_of(valued), value_of(unbound)) == (3 * MICROS, 2 * MICROS, None)
    assert utility(valued, SLOW) == pytest.approx(MICROS)
    assert utility(unbound, SLOW) is None


def test_the_weights_are_shown_with_their_money() -> None:
    assert weights(PRESETS["balanced"], currency="EUR") == (
        "cost + 0.10 EUR per kg CO2e + 0.20 EUR per hour of delay (balanced)"
    )
    assert weights(Preference()) == "cost alone (cheapest)"
    assert is_cheapest(Preference())
    with pytest.raises(InvalidInput, match="cheapest, balanced"):
        preset("quickest")
