"""Which tier a job gets: the least that it asks for, or more, and the lightest of those."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.isolation import ISOLATION, RANKS, choose_tier, suffices
from perak.domain.job import JobSpec, Resources
from perak.domain.market.feasible import misfits
from perak.domain.offer import Offer, OfferAsk, SandboxTier
from perak.domain.plausible import Implausible, check_offer

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)

offered_tiers = st.lists(st.sampled_from(sorted(RANKS)), unique=True).map(tuple)
least_asked = st.none() | st.sampled_from(ISOLATION)


def ask(*tiers: SandboxTier, tier: str = "bubblewrap") -> OfferAsk:
    return OfferAsk(
        region="DE", cpu_model="x", cpu_milli=1, memory_bytes=1, disk_bytes=1, tier=tier, tiers=tiers
    )


BUBBLEWRAP = SandboxTier(tier="bubblewrap", runtime="bubblewrap 0.8.0")
CRUN = SandboxTier(tier="crun", runtime="crun 1.8.1")
GVISOR = SandboxTier(tier="gvisor", runtime="runsc", devices=False)


@given(offered=offered_tiers, least=least_asked)
def test_the_tier_that_is_chosen_is_offered_suffices_and_is_the_lightest(
    offered: tuple[str, ...], least: str | None
) -> None:
    chosen = choose_tier(offered, least)
    fitting = [tier for tier in offered if suffices(tier, least)]
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        assert chosen in fitting
        assert RANKS[chosen] == min(RANKS[tier] for tier in fitting)


@pytest.mark.parametrize(
    ("least", "with_devices", "tier"),
    [
        (None, False, "bubblewrap"),
        ("bubblewrap", True, "bubblewrap"),
        ("crun", False, "crun"),
        ("runc", False, "crun"),
        ("gvisor", False, "gvisor"),
        ("gvisor", True, None),
        ("microvm", False, None),
    ],
)
def test_a_job_gets_the_lightest_tier_that_suffices_and_takes_its_devices(
    least: str | None, with_devices: bool, tier: str | None
) -> None:
    assert ask(BUBBLEWRAP, CRUN, GVISOR).tier_for(least, with_devices=with_devices) == tier


def test_the_providers_default_is_kept_where_it_suffices() -> None:
    heavy = ask(GVISOR, BUBBLEWRAP, tier="gvisor")
    assert heavy.tier_for("crun", with_devices=False) == "gvisor"
    assert heavy.tier_for(None, with_devices=True) == "bubblewrap"


def test_an_agent_that_names_one_tier_offers_that_one() -> None:
    old = replace(ask(), runtime="bubblewrap 0.8.0", enforced=("memory",))
    assert old.sandboxes() == (replace(BUBBLEWRAP, enforced=("memory",)),)
    assert old.tier_for("bubblewrap", with_devices=True) == "bubblewrap"
    assert old.tier_for("crun", with_devices=False) is None
    assert old.sandbox("crun").tier == "bubblewrap"


@pytest.mark.parametrize(
    ("tiers", "what"),
    [
        ((CRUN, BUBBLEWRAP), "the first must be the default one"),
        ((BUBBLEWRAP, CRUN, CRUN), "two of them have the same name"),
        ((BUBBLEWRAP, SandboxTier(tier="fortress")), "'fortress' is no sandbox tier"),
        ((BUBBLEWRAP, replace(CRUN, runtime="x" * 1000)), "tiers.runtime"),
        ((BUBBLEWRAP, replace(CRUN, unenforced={"memory": "x" * 10**6})), "tiers.unenforced"),
        ((BUBBLEWRAP, replace(CRUN, checklist="sha256:short")), "tiers.checklist"),
        (tuple(SandboxTier(tier=f"t{n}") for n in range(100)), "tiers"),
    ],
)
def test_tiers_that_can_not_be_are_refused(tiers: tuple[SandboxTier, ...], what: str) -> None:
    check_offer(ask(BUBBLEWRAP, replace(CRUN, checklist="sha256:" + "0" * 64)))
    with pytest.raises(Implausible, match=what):
        check_offer(ask(*tiers))


@pytest.mark.parametrize(
    ("least", "gpu_count", "said"),
    [
        ("crun", 0, None),
        ("microvm", 0, "isolation: needs microvm or more, has bubblewrap, crun, gvisor"),
        ("gvisor", 1, "isolation: needs gvisor or more, has bubblewrap, crun for GPU jobs"),
    ],
)
def test_an_offer_without_the_isolation_says_what_it_has(
    least: str, gpu_count: int, said: str | None
) -> None:
    offer = Offer(
        id="offer-1",
        version=1,
        node="node-1",
        node_name="one",
        provider="project-1",
        state="open",
        ask=ask(BUBBLEWRAP, CRUN, GVISOR),
        free_cpu_milli=1,
        free_memory_bytes=1,
        free_disk_bytes=1,
    )
    spec = JobSpec(name="job", run="true", isolation=least, resources=Resources(gpu_count=gpu_count))
    found = [str(each) for each in misfits(spec, offer, now=NOW) if each.dimension == "isolation"]
    assert found == ([said] if said else [])
