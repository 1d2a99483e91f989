"""What `perak agent --tiers` takes."""

from __future__ import annotations

import click
import pytest

from perak.agent.main import tier_names


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
