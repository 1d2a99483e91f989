"""Every lifecycle is whole: what can be reached, what ends, and what is refused; its page is current."""

import itertools
import runpy
from pathlib import Path

import pytest

from perak.domain.errors import Conflict, IllegalTransition
from perak.domain.lifecycle import (
    ALL,
    JOB,
    JOB_ENDED,
    JOB_LIVE,
    LEASE,
    LEASE_LIVE,
    NODE,
    OFFER,
    RUN,
    Lifecycle,
)

ROOT = Path(__file__).resolve().parents[3]

each_lifecycle = pytest.mark.parametrize("lifecycle", ALL, ids=lambda lifecycle: lifecycle.name)


def reachable(lifecycle: Lifecycle, start: str) -> set[str]:
    """The states that some events lead to from `start`, itself among them."""
    found, open_ = {start}, [start]
    while open_:
        here = open_.pop()
        new = {to for (state, _), to in lifecycle.table.items() if state == here} - found
        found |= new
        open_ += new
    return found


@each_lifecycle
def test_every_state_can_be_reached(lifecycle: Lifecycle) -> None:
    assert reachable(lifecycle, lifecycle.initial) == lifecycle.states


@each_lifecycle
def test_every_state_can_come_to_an_end_where_there_is_one(lifecycle: Lifecycle) -> None:
    for state in lifecycle.states:
        assert not lifecycle.terminal or reachable(lifecycle, state) & lifecycle.terminal


@each_lifecycle
def test_only_what_the_table_has_is_allowed(lifecycle: Lifecycle) -> None:
    events = {event for _, event in lifecycle.table}
    for state, event in itertools.product(lifecycle.states, events | {"unheard_of"}):
        if (state, event) in lifecycle.table:
            assert lifecycle.allows(state, event)
            assert lifecycle.step(state, event) == lifecycle.table[state, event]
        else:
            assert not lifecycle.allows(state, event)
            with pytest.raises(IllegalTransition, match=f"a {lifecycle.name} that is {state} can't"):
                lifecycle.step(state, event)


def test_an_illegal_step_is_a_conflict_to_whoever_asked() -> None:
    with pytest.raises(Conflict) as refused:
        JOB.step("succeeded", "cancel_asked")
    assert refused.value.code == "illegal_transition"


def test_where_lives_end() -> None:
    assert JOB.terminal == set(JOB_ENDED) == JOB.states - set(JOB_LIVE)
    assert LEASE.terminal == {"ended", "fenced"} == LEASE.states - set(LEASE_LIVE)
    assert RUN.terminal == {"exited", "refused", "fenced"}
    assert NODE.terminal == {"revoked"}
    assert OFFER.terminal == set()


def test_a_job_whose_node_is_lost_waits_again_and_a_cancelled_one_does_not() -> None:
    assert JOB.step("running", "requeued") == "queued"
    assert not JOB.allows("cancelling", "requeued")


def test_a_cancellation_that_lost_the_race_tells_what_happened() -> None:
    assert {to for (state, _), to in JOB.table.items() if state == "cancelling"} == set(JOB_ENDED)


@each_lifecycle
def test_a_diagram_shows_every_step(lifecycle: Lifecycle) -> None:
    lines = lifecycle.mermaid().splitlines()
    assert lines[:2] == ["stateDiagram-v2", f"    [*] --> {lifecycle.initial}"]
    for (state, event), to in lifecycle.table.items():
        assert f"    {state} --> {to}: {event}" in lines
    assert len(lines) == 2 + len(lifecycle.table) + len(lifecycle.terminal)


def test_the_committed_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "lifecycles.py"))
    committed = (ROOT / "docs" / "lifecycles.md").read_text(encoding="utf-8")
    assert committed == script["page"](), "run `python scripts/lifecycles.py` and commit docs/lifecycles.md"
