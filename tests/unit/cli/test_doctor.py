"""What `perak node doctor` shows and answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from perak.agent import doctor
from perak.agent.doctor import Diagnosis, Finding
from perak.agent.sandbox import TierReport
from perak.cli.main import cli
from perak.domain.checklist import CHECKS, CheckResult, limits

PASSED = tuple(CheckResult(name=check.name, outcome="passed") for check in CHECKS)
GOOD = TierReport(tier="bubblewrap", available=True, runtime="bubblewrap 0.8.0", checks=PASSED)
OPEN = CheckResult(name="mounts", outcome="failed", detail="mount succeeded")
BAD = TierReport(
    tier="crun",
    available=False,
    reason="mounts: mount succeeded",
    runtime="crun 1.8",
    checks=(OPEN, CheckResult(name="bpf", outcome="not_run", detail="no number for it")),
)
CLOCK = Finding(name="clock", state="limited", detail="nobody keeps it", advice="apt install chrony")


def run(found: Diagnosis, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "diagnose", lambda *_, **__: found)
    result = CliRunner().invoke(cli, ["node", "doctor", *options], standalone_mode=False)
    code = result.return_value if isinstance(result.return_value, int) else result.exit_code
    return code, result.stdout


def test_every_check_stands_in_a_column_for_each_tier_and_what_failed_has_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, shown = run(Diagnosis(tiers=(GOOD, BAD), findings=(CLOCK,)), monkeypatch)
    assert code == 0
    lines = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    assert all(check.name in lines for check in CHECKS)
    assert lines["mounts"].split()[1:3] == ["✓", "✗"]
    assert lines["bpf"].split()[1:3] == ["✓", "–"]
    assert "crun: mounts" in shown
    assert "mount succeeded" in shown
    assert "upgrade the runtime" in shown
    assert "apt install chrony" in shown
    assert "can be a node" in shown


def test_whatever_did_not_pass_has_its_remedy() -> None:
    for check in CHECKS:
        failed = doctor.advice_on(CheckResult(name=check.name, outcome="failed"))
        untried = doctor.advice_on(CheckResult(name=check.name, outcome="not_run"))
        assert failed
        assert untried or check.may_lack == "an idle GPU", "a machine without one lacks nothing"


def test_a_limit_that_could_not_be_tried_is_not_told_as_one_that_fails() -> None:
    slow = CheckResult(name="run-time", outcome="not_run", detail="too slow to tell")
    checks = tuple(slow if each.name == slow.name else each for each in PASSED)
    enforced, unenforced = limits(checks)
    (found,) = doctor._limits(replace(GOOD, checks=checks, enforced=enforced, unenforced=unenforced))
    assert (found.name, found.detail) == ("limit: run_time", "run-time could not be tried: too slow to tell")
    assert found.advice == doctor.AGAIN


def test_a_machine_that_can_not_be_a_node_answers_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Diagnosis(tiers=(replace(BAD, tier="bubblewrap"),), findings=())
    code, shown = run(found, monkeypatch)
    assert code == 1
    assert "can't be a node" in shown
    code, shown = run(found, monkeypatch, "--json")
    assert code == 1
    said = json.loads(shown)
    assert said["can_offer"] is False
    assert said["tiers"][0]["checks"][0] == {
        "name": "mounts",
        "outcome": "failed",
        "detail": "mount succeeded",
    }


def test_a_small_disk_and_a_missing_python_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DISK_LEAST_BYTES", 2**62)
    monkeypatch.setattr("perak.agent.environments.interpreters", lambda: ())
    found = {each.name: each for each in doctor._machine(tmp_path / "not" / "there")}
    assert found["disk"].state == "problem"
    assert "make room" in (found["disk"].advice or "")
    assert found["python for jobs"].advice == "apt install python3"
