"""What `perak agent --tiers` takes, and what an offer says of tiers that did not pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import pytest

from perak.agent.main import tier_names
from perak.agent.probe.tiers import Tiers
from perak.agent.sandbox import TierReport


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, None), ("bubblewrap, crun", ("bubblewrap", "crun")), ("crun", "can't be left out"), ("x", "no")],
)
def test_a_provider_names_the_tiers_that_it_offers(text: str | None, names: object) -> None:
    if isinstance(names, str):
        with pytest.raises(click.BadParameter, match=names):
            tier_names(text)
    else:
        assert tier_names(text) == names


def test_a_tier_that_failed_is_named_and_one_that_is_not_installed_is_not() -> None:
    reports = (
        TierReport(tier="bubblewrap", available=True, runtime="bubblewrap 0.8"),
        TierReport(tier="crun", available=False, reason="install crun"),
        TierReport(tier="gvisor", available=False, reason="an ordinary job fails in it", runtime="runsc 1"),
    )
    sandbox: Any = SimpleNamespace(tiers={each.tier: each for each in reports})
    assert Tiers(sandbox).left_out() == {"sandbox gvisor": "an ordinary job fails in it"}
    assert [each.tier for each in Tiers(sandbox).offered()] == ["bubblewrap"]
