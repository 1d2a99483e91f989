"""What a provider is told to ask: never below the electricity, else by what is paid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.market.suggest import MarketBand, Suggestion, suggest
from perak.domain.units import MICROS

PAID = MarketBand(p10=150_000, median=180_000, p90=260_000, trades=40, utilisation=0.6)


def asked(**changes: object) -> Suggestion:
    fields: dict[str, object] = {
        "electricity_per_kwh": 300_000, "fee_basis_points": 200, "currency": "USD",
        "measured_watts": (210, 190, 200),
        "market": PAID,
    }  # fmt: skip
    found = suggest("Tesla V100-SXM2-16GB", **{**fields, **changes})  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_floor_is_the_electricity_of_the_measured_watts_and_the_fee() -> None:
    found = asked()

    assert found.watts == 200
    assert found.floor == pytest.approx(0.2 * 300_000 / 0.98, abs=1)
    assert "median of 3 measured runs" in found.lines("USD")[0]


def test_the_price_follows_what_is_paid_and_how_much_is_in_use() -> None:
    idle = MarketBand(p10=150_000, median=180_000, p90=260_000, trades=40, utilisation=0.1)
    full = MarketBand(p10=150_000, median=180_000, p90=260_000, trades=40, utilisation=0.95)

    assert (asked().price, asked(market=idle).price, asked(market=full).price) == (180_000, 150_000, 260_000)
    assert asked(market=None, currency="EUR").price == 2 * asked().floor


def test_where_electricity_is_dearer_than_the_market_the_floor_is_said() -> None:
    found = asked(electricity_per_kwh=2 * MICROS)

    assert found.price == found.floor
    assert "would not pay the electricity" in found.reason
    assert found.break_even > 1 or found.break_even == pytest.approx(1, abs=0.01)


def test_break_even_counts_waiting_and_what_the_card_costs_a_month() -> None:
    assert 0 < asked().break_even < asked(monthly_cost=30 * MICROS).break_even < 1
    assert asked(monthly_cost=500 * MICROS).break_even > 1


def test_an_unknown_card_that_was_never_measured_is_not_guessed() -> None:
    assert suggest("Frobnicator", electricity_per_kwh=300_000, fee_basis_points=0, currency="USD") is None


@given(electricity=st.integers(0, 10 * MICROS), fee=st.integers(0, 5000))
def test_no_suggestion_is_below_the_floor(electricity: int, fee: int) -> None:
    found = asked(electricity_per_kwh=electricity, fee_basis_points=fee)

    assert found.price >= found.floor
