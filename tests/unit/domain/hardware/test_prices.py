"""An offer's bill beside others': whole bills, never rounded in our favour, nothing compared with nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.facts.prices import DISKLESS, HYPERSCALER, PRICES, SPECIALIST, SPOT
from perak.domain.hardware.prices import (
    Alternative,
    Beside,
    Comparison,
    band,
    compare,
    compare_cores,
    compare_receipt,
)


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


def job_of(hours: float | None, beside: Beside) -> Comparison:
    found = compare("V100", count=1, bill=10**6, currency="USD", hours=hours, beside=beside)
    assert found is not None
    return found


def test_what_leaves_a_hyperscaler_is_on_its_bill() -> None:
    without, with_it = job_of(1, Beside(outputs=0)), job_of(1, Beside(outputs=10 * 2**30))

    assert of(with_it, HYPERSCALER).bill - of(without, HYPERSCALER).bill == 900_000
    assert of(with_it, HYPERSCALER).transfer == 900_000
    assert "with 0.90 for data out" in str(with_it)
    assert "10.7 GB of data out (0.09 per GB, 2026-04-27)" in with_it.terms
    assert of(with_it, SPECIALIST).bill == of(without, SPECIALIST).bill
    assert "disk and transfer at specialists" in with_it.terms


def test_disk_is_on_the_bill_of_machines_that_bring_none_for_as_long_as_the_job_runs_there() -> None:
    day, week = job_of(24, Beside(disk=730 * 2**30)), job_of(7 * 24, Beside(disk=730 * 2**30))
    cloud = of(day, HYPERSCALER)

    assert cloud.seller in DISKLESS
    assert cloud.storage == 24 * 80_000
    assert cloud.bill == 24 * 3_060_000 + cloud.storage
    assert of(week, HYPERSCALER).storage == 7 * cloud.storage
    assert "of disk where a machine brings none (0.08 per GB-month, 2026-09-29)" in day.terms


def test_a_machine_with_a_disk_of_its_own_bills_none() -> None:
    found = compare("T4", count=1, bill=10**5, currency="USD", hours=24, beside=Beside(disk=2**40, outputs=0))

    assert (of(found, HYPERSCALER).seller, of(found, HYPERSCALER).storage) == ("AWS g4dn.xlarge", 0)


@pytest.mark.parametrize(
    ("hours", "outputs", "said"),
    [(1, None, "data out, as its size is not known"), (None, 10**9, "data out, which comes once a job")],
)
def test_what_is_not_on_their_bills_is_said(hours: float | None, outputs: int | None, said: str) -> None:
    found = job_of(hours, Beside(disk=10**9, outputs=outputs))

    assert said in found.left_out
    assert of(found, HYPERSCALER).transfer == 0


def test_a_job_on_cores_is_compared_with_cores_and_memory_by_the_second() -> None:
    found = compare_cores(
        2000, memory_bytes=4 * 2**30, bill=100_000, currency="USD", hours=2, beside=Beside(outputs=2**30)
    )

    cloud = of(found, HYPERSCALER)
    assert cloud.bill == 2 * (2 * 40_478 + 4 * 4_446) + 90_000
    assert (cloud.date, cloud.points) == ("2026-09-29", 1)
    assert of(found, SPOT).seller is None
    assert found is not None
    assert "include a vCPU for each core, whichever is faster, memory, 1.1 GB of data out" in found.terms
    assert compare_cores(2000, memory_bytes=1, bill=1, currency="EUR", hours=2) is None
    blink = compare_cores(1000, memory_bytes=2**30, bill=1, currency="USD", hours=0.0001)
    assert of(blink, HYPERSCALER).bill == (40_478 + 4_446) // 60


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
    assert "disk, as its size is not said" in found.left_out
    device = {"kind": "cpu", "model": "CPU", "uuids": [], "cpu_milli": 1000, "memory_bytes": 2**30}
    cores = compare_receipt({**said, "device": {**device, "disk_bytes": 10**9}}, outputs_bytes=0)
    assert of(cores, HYPERSCALER).bill == 2 * (40_478 + 4_446)
    assert compare_receipt({**said, "device": {"model": "", "uuids": []}}) is None
