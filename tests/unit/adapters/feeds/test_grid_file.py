"""The operator's grid file: what it says, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from perak.adapters.feeds.config import parse_grid_file, read_grid_file
from perak.domain.errors import InvalidInput

WHOLE = """
refresh: 30m
place: {latitude: 52.52, longitude: 13.40}
zones:
  GB: {feed: gb}
  DE: {feed: entsoe, zone: DE_LU, token: $ENTSOE_TOKEN}
  US-CA: {feed: file, path: ca.csv, zone: US-CAL-CISO}
marginal:
  US-CA: {feed: watttime, zone: CAISO_NORTH, user: me, password: $ENTSOE_TOKEN}
addresses: {192.0.2.0/24: DE}
attested: {node-1: DE}
"""


def test_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTSOE_TOKEN", "t0ken")
    path = tmp_path / "grid.yaml"
    path.write_text(WHOLE)
    found = read_grid_file(path)
    assert [(each.region, each.feed.name, each.zone, each.marginal) for each in found.feeds] == [
        ("GB", "gb", "GB", False),
        ("DE", "entsoe", "DE_LU", False),
        ("US-CA", "file", "US-CAL-CISO", False),
        ("US-CA", "watttime", "CAISO_NORTH", True),
    ]
    assert (found.refresh_seconds, found.place) == (1800, (52.52, 13.40))
    assert [(str(net), region) for net, region in found.addresses] == [("192.0.2.0/24", "DE")]
    assert found.attested == {"node-1": "DE"}
    assert "t0ken" not in repr(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("zones: {GB: {feed: tea}}", "'tea' is no feed; they are"),
        ("zones: {DE: {feed: entsoe}}", "needs 'token'"),
        ("zones: {DE: {feed: entsoe, token: $NO_SUCH_NAME}}", "no such environment variable"),
        ("zones: {GB: {feed: gb, zoom: 3}}", "knows no 'zoom'"),
        ("zones: {US: {feed: watttime, user: a, password: b}}", "not mixed"),
        ("marginal: {GB: {feed: gb}}", "not mixed"),
        ("zone: {}", "no key 'zone'"),
        ("refresh: 1s", "more than once a minute"),
        ("place: {latitude: 91, longitude: 0}", "latitude"),
        ("addresses: {home: DE}", "no network"),
        ("attested: {n: 'D E'}", "no region"),
        ("zones: [", "grid.yaml"),
        ("[]", None),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, complaint: str | None) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    if complaint is None:
        assert read_grid_file(path).feeds == ()
        return
    with pytest.raises(InvalidInput, match=complaint):
        read_grid_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"):
        read_grid_file(tmp_path / "none.yaml")


def test_an_empty_tree_means_yearly_averages() -> None:
    assert parse_grid_file({}, folder=Path()).feeds == ()
