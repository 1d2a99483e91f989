"""Quantities are read exactly and shown kindly; money is whole and sums exactly."""

import contextlib
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.errors import InvalidInput
from perak.domain.units import (
    BYTES_MAX,
    DURATION_SECONDS_MAX,
    MONEY_MAX_MICROS,
    at_least,
    billed_seconds,
    charge,
    format_bytes,
    format_duration,
    format_money,
    parse_bytes,
    parse_cpu,
    parse_duration,
    parse_money,
    parse_price,
    split_charge,
)

prices = st.integers(0, 10**9)
milli = st.integers(1, 64_000)
seconds = st.integers(0, DURATION_SECONDS_MAX)
basis_points = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("512MiB", 2**29), ("1.5 kB", 1500), ("7", 7), (7, 7), ("0.1KiB", 102)],
)
def test_amounts_of_memory(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1d", 86400), (" 2H ", 7200), ("1.5h", 5400), (60, 60)],
)
def test_durations(text: str | int, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("4", 4000), (0.5, 500), ("250m", 250), (2, 2000)])
def test_numbers_of_cpus(text: str | float, expected: int) -> None:
    assert parse_cpu(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("5.00", 5_000_000), (0.00005, 50), ("0.000001", 1), (3, 3_000_000)]
)
def test_money(text: str | float, expected: int) -> None:
    assert parse_money(text) == expected


def test_a_price_may_say_per_hour() -> None:
    assert parse_price("0.40/h") == parse_price(0.4) == 400_000


@pytest.mark.parametrize("parse", [parse_bytes, parse_duration, parse_money, parse_price, parse_cpu])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "abc",
        "nan",
        "inf",
        "1e999999",
        "1e-999999",
        "9" * 5000,
        True,
        float("nan"),
        float("inf"),
        "1\n2",
    ],
)
def test_what_is_no_quantity_is_refused(parse: Any, text: object) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_bytes, "16 GX"),
        (parse_bytes, "9999999TB"),
        (parse_duration, "1.5s"),
        (parse_duration, "367d"),
        (parse_duration, "5m30"),
        (parse_money, "0.0000001"),
        (parse_money, "1.00000000000000000000000000000001"),
        (parse_money, "1000000001"),
        (parse_cpu, "0"),
        (parse_cpu, "0.0005"),
        (parse_cpu, "10001"),
        (at_least, "16GB..32GB"),
        (at_least, "..16GB"),
    ],
)
def test_what_is_too_much_or_too_fine_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


def test_an_open_range_is_its_lower_bound() -> None:
    assert at_least("16GB..") == at_least("16GB") == "16GB"
    assert at_least(4) == 4


@given(st.text(max_size=60) | st.floats() | st.integers())
def test_whatever_comes_is_read_or_refused(text: str | float) -> None:
    for parse in (parse_bytes, parse_duration, parse_money, parse_price, parse_cpu):
        with contextlib.suppress(InvalidInput):
            assert parse(text) >= 0  # type: ignore[operator]


@given(st.integers(0, MONEY_MAX_MICROS))
def test_money_that_is_shown_reads_the_same(micros: int) -> None:
    shown = format_money(micros)
    assert parse_money(shown) == micros
    assert len(shown.partition(".")[2]) >= 2


def test_money_names_its_currency_and_its_debts() -> None:
    assert format_money(5_000_000, "USD") == "5.00 USD"
    assert format_money(-12_300) == "-0.0123"


@given(st.integers(0, BYTES_MAX // 2))
def test_a_size_that_is_shown_reads_nearly_the_same(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.051, abs=0)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_960_000, "1.0 GB"),
        (2 * 10**15, "2000.0 TB"),
    ],
)
def test_sizes_change_their_unit_where_they_should(size: int, shown: str) -> None:
    assert format_bytes(size) == shown


@given(st.integers(60, DURATION_SECONDS_MAX))
def test_a_duration_that_is_shown_can_be_typed(length: int) -> None:
    assert parse_duration(format_duration(length)) == pytest.approx(length, abs=60 if length >= 3600 else 0)


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (0.0004, "0 ms"),
        (0.85, "850 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1m 00s"),
        (7500, "2h 05m"),
    ],
)
def test_durations_are_shown_at_their_scale(length: float, shown: str) -> None:
    assert format_duration(length) == shown


@given(price=prices, devices=milli, length=seconds)
def test_a_charge_is_rounded_half_up_once(price: int, devices: int, length: int) -> None:
    cost = charge(price_per_device_hour=price, devices_milli=devices, seconds=length)
    exact = Fraction(price * devices * length, 1000 * 3600)
    assert cost - Fraction(1, 2) <= exact < cost + Fraction(1, 2)


def test_half_a_micro_unit_is_charged_as_one() -> None:
    assert charge(price_per_device_hour=1, devices_milli=1000, seconds=1800) == 1
    assert charge(price_per_device_hour=1, devices_milli=1000, seconds=1799) == 0


@given(price=prices, devices=milli, length=seconds, more=st.integers(1, 1000))
def test_more_never_costs_less(price: int, devices: int, length: int, more: int) -> None:
    def cost(price: int, devices: int, length: int) -> int:
        return charge(price_per_device_hour=price, devices_milli=devices, seconds=length)

    least = cost(price, devices, length)
    assert least <= min(
        cost(price + more, devices, length),
        cost(price, devices + more, length),
        cost(price, devices, length + more),
    )


@given(cost=st.integers(0, 10**15), fee=basis_points)
def test_payout_and_fee_sum_to_the_cost_and_the_remainder_is_the_provider_s(cost: int, fee: int) -> None:
    payout, kept = split_charge(cost, fee_basis_points=fee)
    assert payout + kept == cost
    assert 0 <= kept <= Fraction(cost * fee, 10_000) < kept + 1


@given(cost=st.integers(0, 10**15), more=st.integers(0, 10**6), fee=basis_points)
def test_of_a_higher_cost_nobody_gets_less(cost: int, more: int, fee: int) -> None:
    payout, kept = split_charge(cost, fee_basis_points=fee)
    higher_payout, higher_kept = split_charge(cost + more, fee_basis_points=fee)
    assert (higher_payout >= payout, higher_kept >= kept) == (True, True)


@pytest.mark.parametrize(("ms", "billed"), [(0, 0), (1, 1), (1000, 1), (1001, 2), (-5, 0)])
def test_each_begun_second_is_billed(ms: int, billed: int) -> None:
    assert billed_seconds(1_700_000_000_000, 1_700_000_000_000 + ms) == billed
