"""An offer's bill beside others': whole bills, never rounded in our favour, nothing compared with nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.facts.prices import HYPERSCALER, PRICES, SPECIALIST, SPOT
from perak.domain.hardware.prices import Alternative, Comparison, band, compare, compare_receipt


def of(found: Comparison | None, kind: str) -> Alternative:
    assert found is not None
    return next(each for each in found.alternatives if each.kind == kind)


def hour(gpu: str, bill: int, **more: int) -> Comparison | None:
    return compare(gpu, count=1, bill=bill, currency="USD", hours=None, **more)


def test_the_least_of_each_kind_with_its_points_its_day_and_its_seller() -> None:
    found = hour("NVIDIA H100 80GB HBM3", 2_000_000)

    least = min(row[3] for row in PRICES if row[0] == HYPERSCALER and row[2] == "H100 SXM5 80GB")
    cloud, spot = of(found, HYPERSCALER), of(found, SPOT)
    assert cloud.bill <= least
    assert cloud.saving == cloud.bill - 2_000_000
    assert cloud.points >= 3
    assert cloud.date in str(cloud)
    assert f"{cloud.points} prices" in str(cloud)
    assert (spot.points, spot.seller) == (1, "GCP a3-highgpu-1g spot us-central1")


def test_where_nobody_sells_the_like_it_is_said() -> None:
    assert "its spot: no comparable offer" in str(hour("Tesla V100-SXM2-16GB", 180_000))
    assert of(hour("Tesla K80", 50_000), SPECIALIST).seller is None


def test_comparable_is_by_throughput_and_the_bill_by_how_long_it_takes_there() -> None:
    found = of(compare("RTX 3090", count=1, bill=10**6, currency="USD", hours=10), SPECIALIST)

    assert "RTX 3090" not in found.gpu
    price = next(row[3] for row in PRICES if f"{row[1]}" == found.seller)
    assert found.bill != price * 10
    assert 1 / 1.5 <= found.bill / (price * 10) <= 1.5


def test_what_leaves_a_hyperscaler_is_on_its_bill() -> None:
    without = compare("V100", count=1, bill=10**6, currency="USD", hours=1)
    with_it = compare("V100", count=1, bill=10**6, currency="USD", hours=1, outputs_bytes=10 * 10**9)

    assert of(with_it, HYPERSCALER).bill - of(without, HYPERSCALER).bill == 900_000
    assert of(with_it, SPECIALIST).bill == of(without, SPECIALIST).bill


def test_a_card_with_less_memory_than_the_job_needs_is_no_alternative() -> None:
    small = of(hour("Tesla V100-SXM2-32GB", 200_000, memory_needed=32 * 10**9), HYPERSCALER)

    assert small.gpu == "V100 SXM2 32GB"


def test_a_dearer_offer_is_called_dearer() -> None:
    found = of(hour("T4", 600_000), HYPERSCALER)

    assert found.saving < 0
    assert "% more than" in str(found)


@given(bill=st.integers(min_value=0, max_value=10**8))
def test_a_saving_is_never_rounded_up(bill: int) -> None:
    found = of(hour("T4", bill), HYPERSCALER)

    assert found.saving_percent <= (1 - bill / found.bill) * 100 + 1e-9


@pytest.mark.parametrize(("gpu", "currency"), [("T4", "EUR"), ("Unknown", "USD")])
def test_nothing_is_compared_with_nothing(gpu: str, currency: str) -> None:
    assert compare(gpu, count=1, bill=100_000, currency=currency, hours=1) is None


def test_the_band_is_of_the_very_card() -> None:
    assert band("NVIDIA GeForce RTX 3090") == (180_000, 180_000, 1)
    assert band("Tesla K80") is None


def test_a_receipt_is_compared_as_it_was_billed() -> None:
    said = {
        "device": {"model": "Tesla V100-SXM2-16GB", "uuids": ["GPU-1", "GPU-2"]},
        "billed_seconds": 7200,
        "cost_micros": 720_000,
        "currency": "USD",
    }

    found = compare_receipt(said)

    assert found is not None
    assert (found.hours, found.per_hour) == (2.0, False)
    assert of(found, HYPERSCALER).bill == 4 * 3_060_000
    assert compare_receipt({**said, "device": {"model": "CPU", "uuids": []}}) is None
