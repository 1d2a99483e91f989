"""GPUs are known by the names that NVML, people and price lists give them, and compared fairly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.hardware.prices import comparison
from perak.domain.hardware.specs import SPECS, find_gpu


@pytest.mark.parametrize(
    ("name", "memory_gib", "variant"),
    [
        ("Tesla V100-SXM2-16GB", None, "V100 SXM2 16GB"),
        ("NVIDIA GeForce RTX 3090", None, "RTX 3090 24GB"),
        ("GeForce RTX 3090", None, "RTX 3090 24GB"),
        ("rtx3090", None, "RTX 3090 24GB"),
        ("RTX 3090 Ti", None, "RTX 3090 Ti 24GB"),
        ("NVIDIA A100-SXM4-80GB", None, "A100 SXM4 80GB"),
        ("NVIDIA A10", None, "A10 24GB"),
        ("NVIDIA A10G", None, "A10G 24GB"),
        ("A100", 39.6, "A100 SXM4 40GB"),
        ("A100", 79.3, "A100 SXM4 80GB"),
        ("V100", None, "V100 SXM2 16GB"),
        ("Quadro RTX 6000", None, "Quadro RTX 6000 24GB"),
        ("NVIDIA RTX 6000 Ada Generation", None, "RTX 6000 Ada 48GB"),
        ("Radeon VII", None, "Radeon VII 16GB"),
        ("AMD Instinct MI50", 31.9, "MI50 32GB"),
    ],
)
def test_a_gpu_is_found(name: str, memory_gib: float | None, variant: str) -> None:
    memory_bytes = None if memory_gib is None else int(memory_gib * 2**30)
    found = find_gpu(name, memory_bytes=memory_bytes)
    assert found is not None
    assert found.variant == variant


@pytest.mark.parametrize("name", ["", "A1", "A1000", "Radeon V", "RTX 3090 Super", "NVIDIA", "AMD Radeon"])
def test_other_gpus_are_not_guessed(name: str) -> None:
    assert find_gpu(name) is None


def test_every_name_leads_to_its_own_row() -> None:
    for spec in SPECS:
        assert [find_gpu(name) for name in spec.names] == [spec] * len(spec.names)


def test_a_second_life_v100_against_the_cloud() -> None:
    found = comparison("Tesla V100-SXM2-16GB", 180_000, currency="USD")
    assert found is not None
    assert (found.median_cut_percent, found.cheapest_cut_percent, found.spot_cut_percent) == (94, 94, 51)
    assert "51% below spot (0.371)" in str(found)
    assert "autumn 2026" in str(found)


def test_a_missing_spot_price_is_said() -> None:
    found = comparison("H100", 2_400_000, currency="USD", memory_bytes=80 * 2**30)
    assert found is not None
    assert found.spot_cut_percent is None
    assert "no spot price known" in str(found)


def test_a_dearer_offer_is_called_dearer() -> None:
    found = comparison("T4", 600_000, currency="USD")
    assert found is not None
    assert found.median_cut_percent == -15
    assert "15% above" in str(found)


@given(price=st.integers(min_value=0, max_value=10**8))
def test_a_cut_is_never_rounded_up(price: int) -> None:
    found = comparison("T4", price, currency="USD")
    assert found is not None
    assert found.median_cut_percent <= (1 - price / found.median_micros) * 100 + 1e-6


@pytest.mark.parametrize(("gpu", "currency"), [("T4", "EUR"), ("RTX 3090", "USD"), ("Unknown", "USD")])
def test_nothing_is_compared_with_nothing(gpu: str, currency: str) -> None:
    assert comparison(gpu, 100_000, currency=currency) is None


def test_another_memory_is_another_gpu() -> None:
    assert comparison("Tesla V100-SXM2-32GB", 180_000, currency="USD") is None
