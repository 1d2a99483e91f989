"""The checks fail inside every other tier too where it is weakened: what a runtime adds must hide nothing."""

from __future__ import annotations

import pytest
from weak import WeakSandbox, attacked
from weaknesses import IN_GVISORS_PLACE, TRIED, Node, Weak

from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.sandbox.tiers.probe import probe_tiers

SHOWN = [(tier, weak) for tier, found in TRIED.items() if tier != "bubblewrap" for weak in found]


@pytest.fixture(scope="module")
def inside(probed: tuple[Sandbox, TierReport]) -> Sandbox:
    """The sandbox, with what is remembered of its tiers."""
    missing = {tier for tier, _ in SHOWN} - probed[0].tiers.keys()
    probe_tiers(probed[0], wanted=missing)
    return probed[0]


@pytest.mark.parametrize(
    ("tier", "weak"),
    SHOWN,
    ids=[f"{tier}: {weak.name}{', in its place' * (weak in IN_GVISORS_PLACE)}" for tier, weak in SHOWN],
)
def test_checks_fail_where_a_tier_is_weakened(inside: Sandbox, node: Node, tier: str, weak: Weak) -> None:
    if not (report := inside.tiers[tier]).available:
        pytest.skip(f"no {tier} on this machine: {report.reason}")
    if why := weak.needs():
        pytest.skip(why)
    sandbox = WeakSandbox(node.state, weak.host(inside.host, node), weak.flaws(node))
    sandbox.tiers = inside.tiers
    results = attacked(sandbox, weak.shows, tier=tier)
    assert {name: each for name, each in results.items() if each.outcome != "failed"} == {}
    unsaid = {
        name: (words, results[name].detail)
        for name, shown in weak.shows.items()
        for words in shown
        if words not in results[name].detail
    }
    assert unsaid == {}
