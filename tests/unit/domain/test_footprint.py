"""The sums on a receipt: each follows from the figures beside it, and a change of any is found."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.counting import moving
from perak.domain.carbon.embodied import embodied_share, gpu_range
from perak.domain.footprint import (
    SECONDS_PER_YEAR,
    Avoided,
    Carbon,
    EmbodiedPart,
    Energy,
    HourCarbon,
    avoided_grams,
    carbon_miscalculations,
    sci,
)

KWH = 3_600_000.0
ENERGY = Energy(joules=KWH, method="NVML energy counter", uncertainty_percent=5.0, samples=720)
CARBON = Carbon(
    grams=300.0,
    grams_per_kwh=200.0,
    pue=1.5,
    region="DE",
    method="hourly average: measured",
    source="a feed",
    year=2026,
    hours=(
        HourCarbon(hour=490_000, joules=KWH / 2, grams_per_kwh=100.0, kind="measured"),
        HourCarbon(hour=490_001, joules=KWH / 2, grams_per_kwh=300.0, kind="measured"),
    ),
)
V100 = ("Tesla V100-SXM2-16GB", 16 * 2**30)
EMBODIED = embodied_share(gpus=[V100], host_share=0.25, seconds=3600)
NEW = EmbodiedPart(what="L40S", count=1.0, low_kg=150, high_kg=277.1, sources=("ccf",))
_low, _high = avoided_grams(EMBODIED, NEW, time_ratio=0.5)
AVOIDED = Avoided(
    low_grams=_low, high_grams=_high, instead_of="L40S", time_ratio=0.5, basis="data sheets", part=NEW
)
MOVED = moving(
    received_bytes=6 * 10**9,
    sent_bytes=3 * 10**9,
    run_bytes=10**9,
    grams_per_kwh=200.0,
    uncounted=("the image",),
)
SCORE = sci(ENERGY, CARBON, EMBODIED, unit="epoch", count=10)


def test_a_receipts_figures_follow_from_each_other() -> None:
    assert carbon_miscalculations(ENERGY, CARBON, EMBODIED, AVOIDED, SCORE, MOVED) == []
    assert (MOVED.low_grams, MOVED.high_grams) == pytest.approx((3.8, 120)), "10 GB at 0.0019 and 0.06 kWh"
    assert SCORE.low == pytest.approx((300 + EMBODIED.low_grams) / 10)
    assert SCORE.high == pytest.approx((300 + EMBODIED.high_grams) / 10)


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (carbon_miscalculations(ENERGY, replace(CARBON, grams=299.0), None, None, None), "x PUE is 300"),
        (carbon_miscalculations(replace(ENERGY, joules=1.0), CARBON, None, None, None), "sums to"),
        (carbon_miscalculations(None, CARBON, None, None, None), "without energy"),
        (
            carbon_miscalculations(
                ENERGY, replace(CARBON, grams_per_kwh=100.0, grams=150.0), None, None, None
            ),
            "mean intensity is 200",
        ),
        (carbon_miscalculations(None, None, replace(EMBODIED, low_grams=0.0), None, None), "embodied"),
        (
            carbon_miscalculations(None, None, EMBODIED, replace(AVOIDED, low_grams=9.0), None),
            "avoided comes to",
        ),
        (carbon_miscalculations(ENERGY, CARBON, EMBODIED, None, replace(SCORE, low=0.0)), "SCI"),
        (carbon_miscalculations(ENERGY, None, EMBODIED, None, SCORE), "without what it is made of"),
        (
            carbon_miscalculations(None, None, None, None, None, replace(MOVED, low_grams=0.0)),
            "moving the data",
        ),
        (
            carbon_miscalculations(None, None, None, None, None, replace(MOVED, sent_bytes=0)),
            "moving the data",
        ),
    ],
)
def test_a_changed_figure_is_found(found: list[str], complaint: str) -> None:
    assert complaint in "; ".join(found)


@given(joules=st.tuples(st.floats(), st.floats()), pue=st.floats(), factor=st.floats(), years=st.floats())
def test_no_figure_breaks_the_sums(
    joules: tuple[float, float], pue: float, factor: float, years: float
) -> None:
    """They are a stranger's: below zero or beyond all measure they are wrong, which is an answer."""
    hours = tuple(replace(each, joules=own) for each, own in zip(CARBON.hours, joules, strict=True))
    carbon = replace(CARBON, pue=pue, grams_per_kwh=factor, hours=hours)
    energy, embodied = replace(ENERGY, joules=joules[0]), replace(EMBODIED, life_years_long=years)
    assert carbon_miscalculations(energy, carbon, embodied, AVOIDED, SCORE)


def test_avoided_carbon_is_negative_where_old_cards_take_more_of_themselves() -> None:
    """A card of 1.07 t that works as long as a new one of a fifth of that avoids nothing."""
    heavy = embodied_share(gpus=[("NVIDIA H200", 141 * 2**30)], host_share=0.0, seconds=3600)
    low, _ = avoided_grams(heavy, NEW, time_ratio=0.2)
    assert low < 0


def test_a_card_that_one_source_knows_has_a_range_all_the_same() -> None:
    assert gpu_range("P100") == (150.0, 273.0, ("boaviztapi", "ccf", "ecologits"))
    assert gpu_range("NVIDIA H100 80GB HBM3")[:2] == (164.0, 575.1)
    assert gpu_range("Voodoo 2")[:2] == (150.0, 273.0)


@given(seconds=st.floats(min_value=1, max_value=1e7), share=st.floats(min_value=0, max_value=1))
def test_embodied_carbon_is_a_share_of_a_whole_life(seconds: float, share: float) -> None:
    found = embodied_share(gpus=[V100, V100], host_share=share, seconds=seconds)
    _, high, _ = gpu_range(*V100[:1], memory_bytes=V100[1])
    assert 0 < found.low_grams <= found.high_grams
    whole = (2 * high + share * 1693.0) * 1000 * seconds / (4 * SECONDS_PER_YEAR)
    assert found.high_grams == pytest.approx(whole)
    assert carbon_miscalculations(None, None, found, None, None) == []
