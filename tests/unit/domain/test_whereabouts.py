"""Where a node can be: what light allows, what the operator knows, and what a mere claim is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.facts.places import PLACES
from perak.domain.whereabouts import (
    ADDRESS,
    CLAIMED,
    DECLARED,
    LATENCY,
    OPERATOR,
    Sighting,
    distance_km,
    grams_at_least,
    judge,
    possible_regions,
    reach_km,
)

BERLIN, SYDNEY, PARIS = (52.52, 13.40), (-33.87, 151.21), (48.86, 2.35)


def seen(place: tuple[float, float], *, rtt: float) -> Sighting:
    return Sighting(latitude=place[0], longitude=place[1], km=reach_km(rtt))


def test_light_goes_a_hundred_kilometres_there_and_back_in_a_millisecond() -> None:
    assert reach_km(0.001) == pytest.approx(100)
    assert distance_km(BERLIN, PARIS) == pytest.approx(878, abs=5)


def test_a_claim_that_light_contradicts_is_refused() -> None:
    far = judge("AU", seen(BERLIN, rtt=0.020))
    assert far.refused is not None
    assert "at most 2000 km away" in far.refused
    assert judge("AU", seen(SYDNEY, rtt=0.020)).refused is None


def test_not_even_the_operator_is_believed_against_it() -> None:
    told = Sighting(latitude=BERLIN[0], longitude=BERLIN[1], km=500.0, attested="AU")
    assert judge("AU", told).refused is not None


def test_a_slow_answer_contradicts_nothing_and_supports_nothing() -> None:
    found = judge("DE", seen(SYDNEY, rtt=0.300))
    assert (found.refused, found.evidence) == (None, DECLARED)


def test_a_quick_answer_bounds_and_the_dirtiest_place_left_counts() -> None:
    found = judge("FR", seen(PARIS, rtt=0.002))
    assert found.evidence == LATENCY
    assert {"FR", "BE", "LU"} <= set(found.possible)
    assert "PL" not in found.possible
    assert 44 < grams_at_least("FR", found) <= grams_at_least("FR", CLAIMED)


def test_the_operators_word_and_table_support_a_claim_that_they_lie_in() -> None:
    assert judge("EU", Sighting(attested="DE")).evidence == OPERATOR
    assert judge("DE", Sighting(address_region="DE")).evidence == ADDRESS
    assert grams_at_least("DE", judge("DE", Sighting(address_region="DE"))) == 0
    other = judge("FR", Sighting(address_region="DE"))
    assert (other.evidence, other.refused) == (DECLARED, None)
    assert "DE" in other.detail


def test_who_says_nothing_of_where_it_is_contradicts_nothing() -> None:
    assert judge("WORLD", seen(BERLIN, rtt=0.001)).refused is None
    assert judge("Atlantis", seen(BERLIN, rtt=0.001)).refused is None
    assert judge("DE", None) == CLAIMED


@given(
    row=st.sampled_from(PLACES),
    latitude=st.floats(min_value=-89, max_value=89),
    longitude=st.floats(min_value=-180, max_value=180),
    slower=st.floats(min_value=1.0, max_value=50.0),
)
def test_an_honest_node_is_never_refused(
    row: tuple[str, float, float, int], latitude: float, longitude: float, slower: float
) -> None:
    """Wherever in its region's circle: no packet is quicker than light along the great circle."""
    region, middle, radius = row[0], (row[1], row[2]), row[3]
    probe = (latitude, longitude)
    nearest = max(0.0, distance_km(probe, middle) - radius)
    rtt = 2 * nearest / 200_000 * slower + 1e-6
    assert judge(region, seen(probe, rtt=rtt)).refused is None
    if "-" not in region:
        assert region in possible_regions(probe, reach_km(rtt))
