"""What a receipt counts: the hours that were, else the year; and the hardware."""

from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.counting import hardware, operational
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import YEARLY_GRID, Grid, ZoneOutlook
from perak.domain.carbon.signal import AverageHours
from perak.domain.footprint import YEARLY_AVERAGE, Energy, carbon_miscalculations, sci
from perak.domain.whereabouts import OPERATOR, Whereabouts

HOUR = 490_000
KWH = 3_600_000.0
FEED = AverageHours(zone="FR", first_hour=HOUR, grams_per_kwh=(20, 80), source="a feed")
GRID = Grid({"FR": ZoneOutlook(yearly=yearly_intensity("FR"), measured=FEED)})


def energy(joules: float) -> Energy:
    return Energy(joules=joules, method="counted", uncertainty_percent=5.0, samples=9)


def test_each_hours_energy_counts_with_that_hours_intensity() -> None:
    drawn = ((HOUR, KWH / 4), (HOUR + 1, 3 * KWH / 4))
    found = operational(
        KWH, hours=drawn, start=HOUR * 3600.0, seconds=7200, region="FR", grid=GRID, pue=1.0,
        where=Whereabouts(evidence=OPERATOR),
    )  # fmt: skip
    assert found.grams == pytest.approx(20 / 4 + 80 * 3 / 4)
    assert (found.method, found.source) == ("hourly average: measured", "a feed")
    assert (found.region_evidence, found.year) == (OPERATOR, 2025)
    assert carbon_miscalculations(energy(KWH), found, None, None, None) == []


def test_without_the_nodes_hours_power_is_taken_as_even() -> None:
    found = operational(KWH, start=HOUR * 3600.0 + 1800, seconds=3600, region="FR", grid=GRID, pue=1.0)
    assert found.grams == pytest.approx(50)


def test_hours_that_the_feed_does_not_know_are_the_years_and_named() -> None:
    found = operational(KWH, start=HOUR * 3600.0 + 3600, seconds=7200, region="FR", grid=GRID)
    assert found.method == "hourly average: 50% measured, 50% yearly average"
    assert "FR 2024" in found.source
    assert carbon_miscalculations(energy(KWH), found, None, None, None) == []


def test_without_a_feed_it_is_the_year_as_it_always_was() -> None:
    found = operational(KWH, start=HOUR * 3600.0, seconds=7200, region="FR", grid=YEARLY_GRID)
    assert (found.method, found.hours, found.year) == (YEARLY_AVERAGE, (), 2024)


def test_a_run_that_drew_nothing_has_a_figure_all_the_same() -> None:
    found = operational(0.0, start=HOUR * 3600.0, seconds=0, region="FR", grid=GRID)
    assert found.grams == 0
    assert found.grams_per_kwh == 20


def test_hardware_names_what_the_card_was_used_instead_of() -> None:
    embodied, avoided = hardware(gpus=[("Tesla T4", 16 * 2**30)] * 2, host_share=0.5, seconds=3600)
    assert avoided is not None
    assert (avoided.instead_of, avoided.part.count) == ("L4", 2.0)
    assert avoided.low_grams < avoided.high_grams
    counted = operational(KWH, start=HOUR * 3600.0, seconds=3600, region="FR", grid=GRID)
    score = sci(energy(KWH), counted, embodied, unit="epoch", count=4)
    assert carbon_miscalculations(energy(KWH), counted, embodied, avoided, score) == []


def test_a_cpu_run_avoids_nothing() -> None:
    embodied, avoided = hardware(gpus=[], host_share=0.1, seconds=60)
    assert avoided is None
    assert [part.what for part in embodied.parts] == ["server"]


@given(
    joules=st.lists(st.floats(min_value=1e-4, max_value=1e9), min_size=1, max_size=30),
    grams=st.lists(st.floats(min_value=0, max_value=2000), min_size=30, max_size=30),
    pue=st.floats(min_value=1, max_value=3),
)
def test_what_is_counted_can_be_counted_again_from_the_rounded_receipt(
    joules: list[float], grams: list[float], pue: float
) -> None:
    feed = AverageHours(zone="FR", first_hour=HOUR, grams_per_kwh=tuple(grams), source="a feed")
    grid = Grid({"FR": ZoneOutlook(yearly=yearly_intensity("FR"), measured=feed)})
    drawn = [(HOUR + index, each) for index, each in enumerate(joules)]
    whole = sum(joules)
    carbon = operational(
        whole, hours=drawn, start=HOUR * 3600.0, seconds=3600, region="FR", grid=grid, pue=pue
    )
    embodied, avoided = hardware(gpus=[("Tesla T4", 16 * 2**30)], host_share=0.3, seconds=whole % 1e5 + 0.1)
    score = sci(energy(whole), carbon, embodied, unit="token", count=3e6)
    parts = (energy(whole), carbon, embodied, avoided, score)
    assert carbon_miscalculations(*(rounded(each) for each in parts)) == []  # type: ignore[arg-type]


def rounded(value: object) -> object:
    """As a receipt writes it: six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return tuple(rounded(each) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: rounded(getattr(value, f.name)) for f in fields(value)})
    return value
