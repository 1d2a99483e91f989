"""The checklist's table, what follows from results, and the pages that speak of it."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from perak.domain.checklist import (
    CHECKS,
    LIMITS,
    MUST,
    Checklist,
    CheckResult,
    Outcome,
    digest,
    is_complete,
    limits,
    unsafe,
)

ROOT = Path(__file__).parents[3]
PASSED = tuple(CheckResult(name=check.name, outcome="passed") for check in CHECKS)


def but(name: str, outcome: Outcome, detail: str = "why") -> tuple[CheckResult, ...]:
    return tuple(
        replace(each, outcome=outcome, detail=detail) if each.name == name else each for each in PASSED
    )


def test_names_are_unique_and_all_limits_hold_where_all_passed() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert limits(PASSED) == (LIMITS, {})
    assert unsafe(PASSED) == {}


@pytest.mark.parametrize("outcome", ["failed", "not_run"])
def test_a_must_that_did_not_pass_keeps_the_tier_off_the_market(outcome: Outcome) -> None:
    for name in MUST:
        found = unsafe(but(name, outcome))
        lacks = next(check.may_lack for check in CHECKS if check.name == name)
        assert (name in found) == (outcome == "failed" or lacks is None)


def test_a_limit_that_did_not_pass_is_a_mark_with_its_reason() -> None:
    for check in CHECKS:
        if check.severity == "limit":
            outcomes: dict[Outcome, str] = {"failed": "", "not_run": " could not be tried"}
            for outcome, words in outcomes.items():
                results = but(check.name, outcome, "no such controller")
                assert unsafe(results) == {}
                enforced, missing = limits(results)
                assert missing == {check.limit: f"{check.name}{words}: no such controller"}
                assert check.limit not in enforced


def test_a_check_without_a_result_counts_unless_another_version_made_the_list() -> None:
    some = tuple(each for each in PASSED if each.name != "mounts")
    assert set(unsafe(some)) == {"mounts"}
    assert unsafe(some, complete=False) == {}


def test_what_could_not_be_tried_makes_a_list_incomplete_unless_there_was_nothing_to_try() -> None:
    assert is_complete(PASSED)
    assert not is_complete(but("run-time", "not_run"))
    assert is_complete(but("device-memory-leftovers", "not_run"))


def test_the_digest_is_of_everything_that_is_said() -> None:
    made = Checklist(
        at=1, agent_version="1", kernel="6.1", tier="bubblewrap", runtime="bwrap", results=PASSED
    )
    assert digest(made) == digest(replace(made))
    others = [replace(made, at=2), replace(made, tier="crun"), replace(made, results=but("bpf", "failed"))]
    assert len({digest(each) for each in (made, *others)}) == 4


def test_the_committed_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "escape_checklist.py"))
    committed = (ROOT / "docs" / "escape-checklist.md").read_text(encoding="utf-8")
    assert committed == script["page"](), "run `python scripts/escape_checklist.py` and commit the page"


THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)`", THREATS))
    assert len(named) > 20
    for each in named:
        top = "tests" if each.startswith(("unit/", "acceptance/")) else "tests/integration"
        assert (ROOT / top / each).is_file(), each


def test_every_attack_that_something_stops_names_a_test() -> None:
    lines = [line.strip().strip("|") for line in THREATS.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    attacks = [row for row in rows if row[0] != "attack"]
    assert len(attacks) > 30
    assert all(len(row) == 4 for row in attacks), "attack, what stops it, what doesn't, test"
    assert [row[0] for row in attacks if "**nothing**" not in row[1] and "test_" not in row[3]] == []
