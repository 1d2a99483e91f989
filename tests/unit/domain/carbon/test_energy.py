"""Models of energy, and carbon from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.energy import (
    cpu_energy,
    cpu_watts,
    gpu_energy,
    gpu_watts,
    operational_carbon,
    total_energy,
)
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.footprint import Energy

amounts = st.floats(min_value=0, max_value=1e6)


def test_a_busy_core_draws_its_full_power() -> None:
    energy = cpu_energy(cpu_seconds=10, seconds=10, cpu_milli=1000, memory_bytes=0)
    assert energy.joules == pytest.approx(120)
    assert "12 W per core" in energy.method


def test_an_idle_core_still_draws() -> None:
    assert cpu_energy(cpu_seconds=0, seconds=10, cpu_milli=1000, memory_bytes=0).joules == pytest.approx(25.2)
    assert cpu_energy(cpu_seconds=0, seconds=10, cpu_milli=0, memory_bytes=10**9).joules == pytest.approx(
        3.725
    )


@given(cpu_seconds=amounts, seconds=amounts, milli=st.integers(0, 10**6), memory=st.integers(0, 10**13))
def test_more_use_never_costs_less_energy(
    cpu_seconds: float, seconds: float, milli: int, memory: int
) -> None:
    less = cpu_energy(cpu_seconds=cpu_seconds, seconds=seconds, cpu_milli=milli, memory_bytes=memory)
    more = cpu_energy(cpu_seconds=cpu_seconds + 1, seconds=seconds, cpu_milli=milli, memory_bytes=memory)
    assert 0 <= less.joules <= more.joules


@given(tdp=st.floats(min_value=10, max_value=1000), use=st.floats(min_value=-1, max_value=2))
def test_a_gpu_stays_between_idle_and_its_limit(tdp: float, use: float) -> None:
    watts = gpu_watts(tdp_watts=tdp, utilisation=use)
    assert 0.12 * tdp <= watts <= tdp * 1.000001
    assert gpu_energy(tdp_watts=tdp, seconds=60, utilisation=use).joules == pytest.approx(60 * watts)


def test_unknown_use_is_named_and_less_certain() -> None:
    known = gpu_energy(tdp_watts=250, seconds=1, utilisation=0.5)
    unknown = gpu_energy(tdp_watts=250, seconds=1)
    assert "typical training" in unknown.method
    assert unknown.uncertainty_percent > known.uncertainty_percent


def test_a_quote_and_a_receipt_use_the_same_model() -> None:
    energy = cpu_energy(cpu_seconds=3600, seconds=3600, cpu_milli=1000, memory_bytes=10**9)
    assert cpu_watts(cpu_milli=1000, memory_bytes=10**9) * 3600 == pytest.approx(energy.joules)


def test_parts_add_up_and_keep_their_methods() -> None:
    parts = [
        Energy(joules=300, method="counter", uncertainty_percent=5),
        Energy(joules=100, method="model", uncertainty_percent=45),
        Energy(joules=0, method="counter", uncertainty_percent=5),
    ]
    assert total_energy(parts) == Energy(joules=400, method="counter + model", uncertainty_percent=15)
    nothing = [Energy(joules=0, method="model", uncertainty_percent=45)]
    assert total_energy(nothing).uncertainty_percent == 45


def test_a_kilowatt_hour_in_germany() -> None:
    carbon = operational_carbon(3_600_000, yearly_intensity("DE"), pue=1.0)
    assert carbon.grams == pytest.approx(344.14, abs=0.01)
    assert (carbon.region, carbon.year, carbon.method) == ("DE", 2024, "yearly average")
    assert operational_carbon(3_600_000, yearly_intensity("DE")).grams == pytest.approx(
        344.14 * 1.56, rel=1e-4
    )


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("DE", "DE"),
        (" de ", "DE"),
        ("DE-BY", "DE"),
        ("us_ca", "US"),
        ("UK", "GB"),
        ("EU", "EU"),
        ("eu-west-1", "EU"),
        ("moonbase", "WORLD"),
        ("", "WORLD"),
    ],
)
def test_a_region_is_found_or_its_larger_one(asked: str, answered: str) -> None:
    found = yearly_intensity(asked)
    assert found.region == answered
    assert found.source
