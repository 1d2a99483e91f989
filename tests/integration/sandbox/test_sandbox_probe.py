"""The probe refuses what isn't safe, says why, and takes the next best."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from perak.agent.sandbox import Sandbox, TierReport, checks
from perak.agent.sandbox import bwrap as bwrap_module
from perak.agent.sandbox.probe import probe
from perak.domain.checklist import CHECKS, CheckResult

_WEAK = """#!/bin/sh
for each; do
    shift
    if [ "$each" = -- ] && [ -z "$found" ]; then
        found=yes
        set -- "$@" {options} --
    else
        set -- "$@" "$each"
    fi
done
exec {bwrap} "$@"
"""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = Path(tempfile.mkdtemp(prefix="perak-probe-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _only(monkeypatch: pytest.MonkeyPatch, *programs: Path) -> None:
    found = [bwrap_module.Candidate(path=each, version=each.name, origin="test") for each in programs]
    monkeypatch.setattr(bwrap_module, "candidates", lambda _: iter(found))


def _program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--share-net", "network"),
        ("--cap-add CAP_SYS_ADMIN", "capabilities"),
        ("--dev-bind / /root", "root"),
        ("--tmpfs /etc", "/etc can be written to"),
    ],
)
def test_a_weakened_sandbox_is_refused(
    probed: tuple[Sandbox, TierReport],
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    why: str,
) -> None:
    real = probed[0].host.binary
    weak = _program(state_dir, "weak", _WEAK.format(options=options, bwrap=real))
    _only(monkeypatch, weak)
    sandbox, report = Sandbox.probe(state_dir)
    assert sandbox is None
    assert not report.available
    assert why in (report.reason or "")


def test_the_next_candidate_is_taken_when_the_first_fails(
    probed: tuple[Sandbox, TierReport], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = _program(state_dir, "broken", "#!/bin/sh\necho 'bwrap: no permission' >&2\nexit 1\n")
    _only(monkeypatch, broken, probed[0].host.binary)
    sandbox, report = Sandbox.probe(state_dir)
    assert sandbox is not None
    sandbox.close()
    assert report.available
    assert report.runtime.startswith("bwrap")


def test_a_bubblewrap_that_cannot_start_is_quoted_with_what_to_do(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only(monkeypatch, _program(state_dir, "broken", "#!/bin/sh\necho 'bwrap: no permission' >&2\nexit 1\n"))
    sandbox, report = Sandbox.probe(state_dir)
    assert sandbox is None
    assert "bwrap: no permission" in (report.reason or "")
    assert "user namespaces" in (report.reason or "")


def test_no_bubblewrap_at_all_says_what_to_install(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch)
    sandbox, report = Sandbox.probe(state_dir)
    assert sandbox is None
    assert "apt install bubblewrap" in (report.reason or "")


def test_without_the_filter_nothing_is_offered_and_the_cause_comes_first(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perak.agent.sandbox.seccomp.write_filter", lambda _: "pyseccomp is missing")
    sandbox, report = Sandbox.probe(state_dir)
    assert sandbox is None
    assert "no filter of system calls, because pyseccomp is missing" in (report.reason or "")
    assert "io-uring" in (report.reason or "")


def test_an_answer_is_remembered_until_something_changes_or_it_is_asked_afresh(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def attack(_: Sandbox, **__: str | None) -> checks.Findings:
        tried.append("tried")
        return checks.Findings(tuple(CheckResult(name=check.name, outcome="passed") for check in CHECKS))

    monkeypatch.setattr(checks, "attack", attack)
    monkeypatch.setattr("perak.agent.sandbox.probe.CACHE_FOLDER", state_dir / "checked")
    counts = []
    for fresh, boot in ((False, "one"), (False, "one"), (True, "one"), (False, "two")):
        monkeypatch.setattr("perak.agent.sandbox.process.boot_id", lambda boot=boot: boot)
        sandbox, report = probe(state_dir, fresh=fresh)
        assert sandbox is not None
        sandbox.close()
        assert len(report.checks) == len(CHECKS)
        counts.append(len(tried))
    assert counts == [1, 1, 2, 3]


def test_without_loop_devices_the_disk_is_only_watched(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("perak.agent.sandbox.scratch.mount_image", refuse)
    sandbox, report = Sandbox.probe(state_dir)
    if sandbox is None:
        pytest.skip(f"no sandbox on this machine: {report.reason}")
    sandbox.close()
    assert "watched" in report.unenforced["disk"]
    assert "not permitted" in report.unenforced["disk"]
