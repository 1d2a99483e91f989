"""The checks inside gVisor fail too where its wall is weakened: its kernel must not hide what got through."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from weak import ROOT_CLOSES, Change, WeakSandbox, before, without

from perak.agent.sandbox import RunSpec, Sandbox, TierReport, bwrap
from perak.agent.sandbox.escape import attack, limits
from perak.agent.sandbox.tiers import Start
from perak.agent.sandbox.tiers.probe import probe_tiers
from perak.domain.checklist import CheckResult

MIB = 1 << 20


class WeakWithin(WeakSandbox):
    """What is changed are the arguments that lay out the job's tree, before a runtime takes them over."""

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        change, original = self._change, bwrap.arguments
        if change is None:
            return Sandbox._plan_start(self, folder, spec)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(bwrap, "arguments", lambda *args, **named: change(original(*args, **named)))
            return Sandbox._plan_start(self, folder, spec)


@pytest.fixture(scope="module")
def inside_gvisor(probed: tuple[Sandbox, TierReport]) -> Sandbox:
    sandbox = probed[0]
    if "gvisor" not in sandbox.tiers:
        probe_tiers(sandbox, wanted={"gvisor"})
    if not (report := sandbox.tiers["gvisor"]).available:
        pytest.skip(f"no gVisor on this machine: {report.reason}")
    return sandbox


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of the node that everybody may write to."""
    folder = Path(tempfile.mkdtemp(prefix="perak-open-", dir="/var/tmp"))
    (folder / "file").touch()
    for path in (folder, folder / "file"):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def found(
    sandbox: Sandbox, only: set[str], change: Change | None = None, **limited: Any
) -> dict[str, CheckResult]:
    weak = WeakWithin(sandbox.state_dir, sandbox.host, arguments=change, limits=limited)
    weak.tiers = sandbox.tiers
    try:
        return {each.name: each for each in attack(weak, tier="gvisor", only=only)}
    finally:
        weak.close()


def test_what_of_the_node_is_in_its_tree_is_found(inside_gvisor: Sandbox, open_folder: Path) -> None:
    state = str(inside_gvisor.state_dir)

    def change(arguments: list[str]) -> list[str]:
        arguments = before(ROOT_CLOSES, "--bind", str(open_folder), "/tmp")(arguments)
        for source in ("/home", "/etc/shadow", state):
            arguments = before(ROOT_CLOSES, "--ro-bind", source, source)(arguments)
        return without(*ROOT_CLOSES)(arguments)

    shown = {
        "host-files": "/home is the node's; ",
        "password-file": "/etc/shadow is the node's",
        "agent-state": "of the agent is there",
        "other-jobs": "its file",
        "scratch-leftovers": "/tmp/left",
    }
    results = found(inside_gvisor, set(shown), change)
    assert {name: each.outcome for name, each in results.items()} == dict.fromkeys(shown, "failed")
    assert [name for name, says in shown.items() if says not in results[name].detail] == []


def test_a_limit_that_is_not_kept_is_found(inside_gvisor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LATE_SECONDS", 0.5)
    weak = {"pids_max": 4096, "disk_bytes": 64 * MIB, "max_duration_seconds": 60.0}
    results = found(inside_gvisor, {"fork-bomb", "disk-fill", "run-time"}, **weak)
    assert {name: each.outcome for name, each in results.items()} == dict.fromkeys(results, "failed")
    assert len(results) == 3
