"""Who outlives whom: agent, shim and sandbox; and that nothing stays behind."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandbox_runs import Runs

import perak
from perak.agent.sandbox import Sandbox
from perak.agent.sandbox.process import read_stat
from perak.agent.sandbox.scratch import mounted_under
from perak.agent.sandbox.uids import SLOTS_FOLDER

HELD_SECONDS = 2.5
"""Longer than a shim waits for anything but a process."""

_AGENT = """
import sys, os
from pathlib import Path
from perak.agent.sandbox import Sandbox
from perak.agent.sandbox.spec import spec_from_json
sandbox, report = Sandbox.probe(Path(sys.argv[1]))
spec = spec_from_json(sys.stdin.read())
sandbox.prepare(spec)
sandbox.start(spec.run_id)
os.kill(os.getpid(), 9)
"""


def _start_from_an_agent_that_dies(runs: Runs, command: str) -> str:
    from perak.agent.sandbox.spec import spec_to_json

    spec = runs.spec(command)
    source = str(Path(perak.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", _AGENT, str(runs.sandbox.state_dir)],
        input=spec_to_json(spec),
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        timeout=20,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    return spec.run_id


def _shim_pid(runs: Runs, run_id: str) -> int:
    pid: int = json.loads((runs.sandbox.state_dir / "runs" / run_id / "shim.json").read_text())["pid"]
    return pid


def test_a_run_outlives_the_agent_that_started_it_and_is_found_again(runs: Runs) -> None:
    run_id = _start_from_an_agent_that_dies(
        runs, "echo begun; while [ ! -e go ]; do sleep 0.02; done; echo on"
    )
    runs.until_logged(run_id, "begun")
    assert [status.state for status in runs.sandbox.find() if status.run_id == run_id] == ["running"]
    (runs.sandbox.work_folder(run_id) / "go").touch()
    status = runs.until(run_id, lambda status: status.state == "exited")
    assert (status.exit_code, runs.log(run_id)) == (0, "begun\non\n")


def test_the_shim_has_its_own_session(runs: Runs) -> None:
    run_id = runs.start("echo ready; sleep 30")
    runs.until_logged(run_id, "ready")
    pid = _shim_pid(runs, run_id)
    assert os.getsid(pid) == os.getpgid(pid) == pid


def test_the_sandbox_dies_with_its_shim_and_the_run_is_lost(runs: Runs) -> None:
    run_id = runs.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    runs.until_logged(run_id, "ready")
    pids = runs.sandbox.job_pids(run_id)
    assert pids
    os.kill(_shim_pid(runs, run_id), signal.SIGKILL)
    status = runs.until(run_id, lambda status: status.state == "lost")
    assert status.cause == "lost"
    _until_gone(pids)
    runs.sandbox.release(run_id)
    assert run_id not in [status.run_id for status in runs.sandbox.find()]


def test_a_reboot_makes_a_run_lost(runs: Runs) -> None:
    run_id = runs.start("true")
    runs.until(run_id, lambda status: status.state == "exited")
    folder = runs.sandbox.state_dir / "runs" / run_id
    (folder / "exit.json").unlink()
    record = json.loads((folder / "shim.json").read_text())
    (folder / "shim.json").write_text(json.dumps(record | {"pid": os.getpid(), "boot_id": "another"}))
    status = runs.sandbox.status(run_id)
    assert status.state == "lost"
    assert "restarted" in (status.detail or "")


def test_a_reused_pid_is_not_taken_for_the_shim(runs: Runs) -> None:
    run_id = runs.start("true")
    runs.until(run_id, lambda status: status.state == "exited")
    folder = runs.sandbox.state_dir / "runs" / run_id
    (folder / "exit.json").unlink()
    record = json.loads((folder / "shim.json").read_text())
    (folder / "shim.json").write_text(json.dumps(record | {"pid": os.getpid()}))
    assert runs.sandbox.status(run_id).state == "lost"


PTRACE_SEIZE = 0x4206  # linux/ptrace.h


def test_a_run_has_not_ended_while_a_process_of_it_is_left(runs: Runs) -> None:
    """A traced process stays, dead or not, until its tracer has waited for it: as one that a driver holds."""
    run_id = runs.start("sleep 1000 & echo up; while [ ! -e /work/go ]; do sleep 0.02; done; exit 7")
    runs.until_logged(run_id, "up")
    runs.until(run_id, lambda _: bool(_sleepers(runs, run_id)))
    (held,) = _sleepers(runs, run_id)
    if ctypes.CDLL(None).ptrace(PTRACE_SEIZE, held, None, None) != 0:
        pytest.skip("root may not trace processes on this machine")
    try:
        (runs.sandbox.work_folder(run_id) / "go").touch()
        _until_gone({held})
        first = time.time()
        assert runs.until(run_id, lambda _: time.time() > first + HELD_SECONDS).state == "running"
    finally:
        os.waitpid(held, 0)
    status = runs.until(run_id, lambda status: status.state != "running")
    assert (status.cause, status.exit_code) == ("exited", 7)
    assert status.ended_at is not None
    assert status.ended_at < first + HELD_SECONDS / 2  # the wait isn't billed


def test_release_leaves_nothing(runs: Runs) -> None:
    spec = runs.spec("mkdir -p a/b; chmod 000 a; ln -s /etc/passwd l; echo x > /tmp/y")
    folder = runs.sandbox.prepare(spec).path
    runs.sandbox.start(spec.run_id)
    runs.until(spec.run_id, lambda status: status.state == "exited")
    assert mounted_under(folder) != [] or not runs.sandbox.host.disk_is_capped
    runs.sandbox.release(spec.run_id)
    assert not folder.exists()
    assert mounted_under(runs.sandbox.state_dir) == []
    assert str(folder) not in [os.readlink(link) for link in SLOTS_FOLDER.iterdir()]
    if runs.sandbox.host.groups is not None:
        assert not any(parent.exists() for parent in runs.sandbox.host.groups.parents.values())
    assert str(folder) not in _loop_files()


def test_an_agent_that_comes_back_clears_what_a_killed_one_left_half_made(runs: Runs) -> None:
    sandbox = runs.sandbox
    spec = runs.spec("true")
    folder = sandbox.prepare(spec).path
    (folder / "run.json").unlink()
    again, _ = Sandbox.probe(sandbox.state_dir)
    assert again is not None
    assert not folder.exists()
    assert mounted_under(folder) == []


def test_a_release_that_was_broken_off_is_done_again(runs: Runs) -> None:
    run_id = runs.start("true")
    runs.until(run_id, lambda status: status.state == "exited")
    folder = runs.sandbox.folder(run_id)
    (folder / "run.json").unlink()
    runs.sandbox.release(run_id)
    assert not folder.exists()
    with pytest.raises(KeyError):
        runs.sandbox.release(run_id)


def test_a_prepare_that_fails_leaves_nothing(runs: Runs) -> None:
    spec = runs.spec("true", disk_bytes=1 << 62)
    try:
        runs.sandbox.prepare(spec)
    except OSError:
        assert not (runs.sandbox.state_dir / "runs" / spec.run_id).exists()
    else:
        raise AssertionError("an image of 4 EiB was made")


def test_the_shim_server_is_replaced_when_it_was_killed(runs: Runs) -> None:
    runs.run("true")
    pid = runs.sandbox._shims._pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status, log = runs.run("echo still here")
    assert (status.exit_code, log) == (0, "still here\n")


def test_a_second_probe_starts_no_run_and_says_the_same(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = Sandbox.probe(runs.sandbox.state_dir)
    monkeypatch.delattr(Sandbox, "prepare")
    _, second = Sandbox.probe(runs.sandbox.state_dir)
    assert first == second


def _until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 5
    while any((stat := read_stat(pid)) is not None and stat.state != "Z" for pid in pids):
        assert time.monotonic() < deadline, "the sandbox outlived its shim"
        time.sleep(0.01)


def _sleepers(runs: Runs, run_id: str) -> list[int]:
    argv = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in runs.sandbox.job_pids(run_id)}
    return [pid for pid, text in argv.items() if text == "sleep\x001000\x00"]


def _loop_files() -> str:
    paths = Path("/sys/block").glob("loop*/loop/backing_file")
    return "\n".join(path.read_text() for path in paths)
