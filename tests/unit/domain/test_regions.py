"""Which place lies in which region."""

import pytest

from perak.domain.regions import is_known, lies_in, nearest_region


@pytest.mark.parametrize(
    ("place", "region"),
    [
        ("DE", "EU"),
        ("DE-BY", "EU"),
        ("DE", "DE"),
        ("US-CA", "US"),
        ("NO", "EEA"),
        ("UK", "GB"),
        ("DE", "WORLD"),
    ],
)
def test_inside(place: str, region: str) -> None:
    assert lies_in(place, region)


@pytest.mark.parametrize(
    ("place", "region"),
    [("EU", "DE"), ("US", "US-CA"), ("CH", "EU"), ("GB", "EU"), ("NO", "EU"), ("WORLD", "EU"), ("USX", "US")],
)
def test_outside(place: str, region: str) -> None:
    assert not lies_in(place, region)


@pytest.mark.parametrize("region", ["EU", "WORLD", "DE", "DE-BY", "us_ca", "UK", "US"])
def test_what_is_known(region: str) -> None:
    assert is_known(region)


@pytest.mark.parametrize(("region", "near"), [("DEU", "DE"), ("XD", None), ("MOON", None), ("US-C", "US-CA")])
def test_what_is_not_known_and_what_is_near_it(region: str, near: str | None) -> None:
    assert not is_known(region)
    assert nearest_region(region) == near
