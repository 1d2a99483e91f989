"""The carbon of a place and an hour, and what a claim of being clean is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import (
    FORECAST,
    MEASURED,
    YEARLY,
    YEARLY_GRID,
    Grid,
    ZoneOutlook,
)
from perak.domain.carbon.signal import AverageHours, MarginalHours, joined, parts_by_hour
from perak.domain.errors import InvalidInput
from perak.domain.facts.power import PUE_UNKNOWN
from perak.domain.whereabouts import DECLARED, LATENCY, OPERATOR, Whereabouts

HOUR = 3600.0
NOW = 490_000 * HOUR
"""Some hour's beginning, in Unix seconds."""
ATTESTED = Whereabouts(evidence=OPERATOR)


def hours(*grams: float | None, first: int = 490_000) -> AverageHours:
    return AverageHours(zone="FR", first_hour=first, grams_per_kwh=grams, source="a feed")


def grid(measured: AverageHours | None = None, forecast: AverageHours | None = None) -> Grid:
    return Grid({"FR": ZoneOutlook(yearly=yearly_intensity("FR"), measured=measured, forecast=forecast)})


def test_each_part_of_a_run_counts_with_its_own_hour() -> None:
    mean = grid(hours(100, 300)).mean("FR", start=NOW + HOUR / 2, seconds=HOUR)
    assert mean.grams_per_kwh == pytest.approx(200)
    assert (mean.label, mean.source) == (MEASURED, "a feed")


def test_hours_that_no_feed_knows_count_with_the_years_mean_and_say_so() -> None:
    mean = grid(hours(100), hours(300, first=490_001)).mean("FR", start=NOW, seconds=4 * HOUR)
    yearly = yearly_intensity("FR").grams_per_kwh
    assert mean.grams_per_kwh == pytest.approx((100 + 300 + 2 * yearly) / 4)
    assert mean.label == f"0.25 {MEASURED}, 0.25 {FORECAST}, 0.50 {YEARLY}"
    assert "FR 2024" in mean.source


def test_a_part_of_a_zone_is_counted_by_the_zone_and_the_unknown_by_the_year() -> None:
    assert grid(hours(7)).zone("fr-idf").measured == hours(7)
    assert YEARLY_GRID.zone("FR-IDF").yearly == yearly_intensity("FR")


def test_a_claim_without_evidence_earns_nothing_for_being_clean() -> None:
    clean = grid(hours(20))
    claimed = clean.carbon(region="FR", watts=1000, seconds=HOUR, start=NOW)
    attested = clean.carbon(region="FR", watts=1000, seconds=HOUR, start=NOW, where=ATTESTED)
    world = yearly_intensity("WORLD").grams_per_kwh

    assert claimed.grams == attested.grams == pytest.approx(20 * PUE_UNKNOWN)
    assert attested.counted_grams == attested.grams
    assert claimed.counted_grams == pytest.approx(world * PUE_UNKNOWN)
    assert claimed.evidence == DECLARED


def test_latency_counts_with_the_dirtiest_place_that_it_leaves_possible() -> None:
    where = Whereabouts(evidence=LATENCY, possible=("FR", "BE"))
    found = grid(hours(20)).carbon(region="FR", watts=1000, seconds=HOUR, start=NOW, where=where)
    assert found.counted_grams == pytest.approx(yearly_intensity("BE").grams_per_kwh * PUE_UNKNOWN)


def test_a_dirty_hour_is_never_counted_cleaner_than_it_is() -> None:
    found = grid(hours(900)).carbon(region="FR", watts=1000, seconds=HOUR, start=NOW)
    assert found.counted_grams == found.grams


def test_each_start_that_may_be_waited_for_has_its_own_carbon() -> None:
    ahead = grid(None, hours(400, 300, 100, 90))
    starts = ahead.starts(
        region="FR", watts=1000, seconds=HOUR, now=NOW, latest_wait_seconds=3 * 3600, where=ATTESTED
    )
    hourly = [each for each in starts if each.wait_seconds % 3600 == 0]
    assert [each.carbon.grams / PUE_UNKNOWN for each in hourly] == pytest.approx([400, 300, 100, 90])


def test_moving_data_is_counted_by_a_preference_and_is_no_emission_of_the_run() -> None:
    here = YEARLY_GRID.carbon(region="DE", watts=10, seconds=60, start=NOW, where=ATTESTED)
    moved = YEARLY_GRID.carbon(
        region="DE", watts=10, seconds=60, start=NOW, where=ATTESTED, transfer_bytes=10**12
    )
    assert moved.grams == here.grams
    low, high = moved.moved_grams
    assert moved.counted_grams == pytest.approx(here.counted_grams + low)
    year = yearly_intensity("DE").grams_per_kwh
    assert (low, high) == pytest.approx((1.9 * year, 60 * year)), "a TB at 0.0019 and at 0.06 kWh a GB"
    assert here.moved_grams == (0, 0)


def test_the_worst_hour_is_of_the_last_week_the_forecast_and_the_year() -> None:
    year = yearly_intensity("FR").grams_per_kwh
    known = hours(950, *[60.0] * 160, 300, first=490_000 - 161)
    assert grid(known).worst("FR", now=NOW) == 950
    assert grid(known).worst("FR", now=NOW + 24 * HOUR) == 300, "a week after it is not expected again"
    assert grid(known, hours(20, 400, first=490_001)).worst("FR", now=NOW + 24 * HOUR) == 400
    assert grid().worst("FR", now=NOW) == year


def test_average_and_marginal_can_not_be_mixed() -> None:
    marginal = MarginalHours(zone="FR", first_hour=490_000, grams_per_kwh=(500,), source="a feed")
    with pytest.raises(TypeError, match="marginal"):
        ZoneOutlook(yearly=yearly_intensity("FR"), measured=marginal)  # type: ignore[arg-type]
    assert not isinstance(marginal, AverageHours)
    assert set(AverageHours.__mro__) & set(MarginalHours.__mro__) == {object}


def test_a_newer_reading_replaces_an_older_one_hour_by_hour() -> None:
    both = joined(hours(1, 2, 3), hours(None, 20, 30, first=490_001))
    assert (both.first_hour, both.grams_per_kwh) == (490_000, (1, 2, 20, 30))


def test_figures_in_another_unit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="lb/MWh"):
        hours(100, 45_000)


@given(
    start=st.floats(min_value=0, max_value=4e9, allow_nan=False),
    seconds=st.floats(min_value=0.01, max_value=400_000, allow_nan=False),
)
def test_the_parts_of_an_interval_are_the_interval(start: float, seconds: float) -> None:
    parts = list(parts_by_hour(start, seconds))
    assert sum(part for _, part in parts) == pytest.approx(seconds, abs=1e-3)
    assert [hour for hour, _ in parts] == list(range(parts[0][0], parts[-1][0] + 1))
    assert all(0 < part <= HOUR for _, part in parts)
