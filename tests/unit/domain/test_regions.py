"""Which place lies in which region."""

import pytest

from perak.domain.regions import lies_in


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
