"""Each escape check passes against the real sandbox, and fails against one weakened in just its point."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from weak import Flaws, WeakSandbox, attacked, sharing
from weaknesses import BUBBLEWRAP, TRIED, Node, Weak, pairs

from perak.agent.sandbox import RunSpec, Sandbox, TierReport
from perak.agent.sandbox.escape import attack, limits
from perak.agent.sandbox.tiers import RUNTIMES, Start
from perak.agent.sandbox.tiers.probe import probe_tiers
from perak.domain.checklist import CHECKS, CheckResult
from perak.domain.isolation import ISOLATION

Findings = Callable[[Weak], dict[str, CheckResult]]


@pytest.fixture(scope="module")
def findings(probed: tuple[Sandbox, TierReport], node: Node) -> Findings:
    """What the checks that it is to show find in a weak sandbox; each is attacked once."""
    found: dict[str, dict[str, CheckResult]] = {}

    def look(weak: Weak) -> dict[str, CheckResult]:
        if weak.name not in found:
            sandbox = WeakSandbox(node.state, weak.host(probed[0].host, node), weak.flaws(node))
            found[weak.name] = attacked(sandbox, weak.shows)
        return found[weak.name]

    return look


SHOWN = [(weak, check) for weak in BUBBLEWRAP for check in weak.shows]


@pytest.mark.parametrize(("weak", "check"), SHOWN, ids=[f"{check}: {weak.name}" for weak, check in SHOWN])
def test_a_check_fails_where_its_point_is_weakened(findings: Findings, weak: Weak, check: str) -> None:
    if why := weak.needs():
        pytest.skip(why)
    result = findings(weak)[check]
    assert result.outcome == "failed", result
    assert [words for words in weak.shows[check] if words not in result.detail] == [], result.detail


def test_each_check_is_tried_weakened_in_each_tier_or_it_is_said_why_not() -> None:
    assert tuple(TRIED) == ISOLATION
    assert set(pairs()) == {(check.name, tier) for check in CHECKS for tier in ISOLATION}


def _excused(sandbox: Sandbox) -> set[str]:
    """Limits that this machine can't hold, as its own probe of control groups and mounts says."""
    missing = sandbox.host.missing_groups
    excused = {"device-memory-leftovers"}
    excused |= {"memory-bomb"} if "memory" in missing else set()
    excused |= {"cpu-share"} if "cpu" in missing else set()
    return excused | (set() if sandbox.host.disk_is_capped else {"disk-fill", "inode-fill"})


def test_every_check_holds_against_the_real_sandbox(probed: tuple[Sandbox, TierReport]) -> None:
    results = attack(probed[0])
    assert [each.name for each in results] == [check.name for check in CHECKS]
    excused = _excused(probed[0])
    assert [each for each in results if each.outcome != "passed" and each.name not in excused] == []


@pytest.mark.parametrize("tier", sorted(RUNTIMES))
def test_every_check_holds_in_every_tier_that_is_here(probed: tuple[Sandbox, TierReport], tier: str) -> None:
    sandbox = probed[0]
    probe_tiers(sandbox, wanted={tier}, fresh=True)
    report = sandbox.tiers[tier]
    if not report.checks:
        pytest.skip(f"no {tier} on this machine: {report.reason}")
    assert [each.name for each in report.checks] == [check.name for check in CHECKS]
    excused = _excused(sandbox)
    assert [each for each in report.checks if each.outcome != "passed" and each.name not in excused] == []
    assert report.available


class WeakWithANetwork(WeakSandbox):
    """The node's own network for runs that may reach an address, which others don't have."""

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        start = Sandbox._plan_start(self, folder, spec)
        return replace(start, arguments=sharing("net")(start.arguments)) if spec.network_allow else start


def test_a_way_out_that_leads_to_the_node_is_found(probed: tuple[Sandbox, TierReport]) -> None:
    sandbox = WeakWithANetwork(probed[0].state_dir, probed[0].host, Flaws())
    (result,) = attacked(sandbox, {"loopback"}).values()
    assert result.outcome == "failed"
    assert "127.0.0.1" in result.detail


def test_what_can_not_be_tried_has_not_passed(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["perak.agent.sandbox.escape.rounds"], "find_python", lambda: None)
    results = attack(probed[0])
    assert {each.outcome for each in results} == {"not_run"}
    assert all("python3" in each.detail for each in results)


@pytest.mark.parametrize(
    ("check", "slow"),
    [
        ("run-time", {"DURATIONS_SECONDS": (0.001,)}),
        ("cpu-share", {"CPU_MILLI": 1_900, "CPU_SECONDS": 0.2}),  # more than one thread can use
    ],
)
def test_what_a_slow_machine_can_not_tell_has_neither_passed_nor_failed(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch, check: str, slow: dict[str, Any]
) -> None:
    if check in _excused(probed[0]):
        pytest.skip("this machine has no such limit")
    for name, value in slow.items():
        monkeypatch.setattr(limits, name, value)
    with _without_grace(probed[0]) as sandbox:
        (result,) = attack(sandbox, only={check})
    assert result.outcome == "not_run", result
    assert "too slow to tell" in result.detail


def test_a_job_that_begins_late_has_its_run_time_tried_again(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DURATIONS_SECONDS", (0.001, *limits.DURATIONS_SECONDS))
    with _without_grace(probed[0]) as sandbox:
        (result,) = attack(sandbox, only={"run-time"})
    assert result.outcome == "passed", result


def _without_grace(sandbox: Sandbox) -> contextlib.closing[WeakSandbox]:
    """So that what has a millisecond has no more: a grace would be time enough to begin."""
    flaws = Flaws(limits={"grace_seconds": 0.0})
    return contextlib.closing(WeakSandbox(sandbox.state_dir, sandbox.host, flaws))
