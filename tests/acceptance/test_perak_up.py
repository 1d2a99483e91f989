"""`perak up`: starts, is found by itself, stops cleanly, keeps its data, leaves nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.local import processes_below, quiet_environment

from perak import Client, PerakError
from perak.client.config import Target

READY_SECONDS_MAX = 60


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="perak-up-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o711)
        yield Path(name)


class Up:
    """One `perak up` on a state folder; the client finds it by that folder alone."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        with (state_dir / "terminal").open("ab") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "perak", "up", "--state-dir", str(state_dir), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=terminal,
                env={**quiet_environment(), "PERAK_TIERS": "bubblewrap"},
                text=True,
            )
        assert self.process.stdout is not None
        begin = time.monotonic()
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "ready" in line:
                return
            assert time.monotonic() - begin < READY_SECONDS_MAX
        raise AssertionError(self.lines)

    def perak(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perak", *arguments],
            env={
                **quiet_environment(),
                "PERAK_STATE_DIR": str(self.state_dir),
                "XDG_CONFIG_HOME": "/nonexistent",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def until(self, condition: Callable[[Client], bool]) -> None:
        """Ask the exchange until it answers and that holds."""
        found = json.loads((self.state_dir / "local.json").read_text())
        deadline = time.monotonic() + READY_SECONDS_MAX
        with Client(target=Target(url=found["url"], api_key=found["api_key"])) as client:
            while True:
                with contextlib.suppress(PerakError):
                    if condition(client):
                        return
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        below = set(processes_below(self.process.pid)) - {self.process.pid}
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0
        deadline = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in below):
            assert time.monotonic() < deadline, "something was left running"
            time.sleep(0.05)


def test_data_is_kept_and_found_again_and_nothing_is_left_running(state_dir: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: kept\nrun: echo kept\n")
    up = Up(state_dir)
    assert "http://127.0.0.1:" in up.lines[-1]
    assert (state_dir / "local.json").stat().st_mode & 0o077 == 0
    ran = up.perak("run", str(job))
    assert ran.returncode == 0, ran.stderr
    second = subprocess.run(
        [sys.executable, "-m", "perak", "up", "--state-dir", str(state_dir), "--port", "0"],
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode != 0
    assert str(up.process.pid) in second.stderr + second.stdout
    up.stop()

    again = Up(state_dir)
    shown = again.perak("show", "kept", "--json")
    assert json.loads(shown.stdout)["state"] == "succeeded", shown.stderr
    assert again.perak("logs", "kept").stdout == "kept\n"
    rerun = again.perak("run", str(job))
    assert rerun.returncode == 0, rerun.stderr
    again.stop()
    told = (state_dir / "terminal").read_text().splitlines()
    assert [line for line in told if not line.startswith("perak ")] == [], "people read words there"
    for part in ("exchange", "agent"):
        log = state_dir / "logs" / f"{part}.log"
        assert log.stat().st_mode & 0o077 == 0
        assert all("event" in json.loads(line) for line in log.read_text().splitlines())


def test_a_killed_exchange_is_started_again_and_the_job_goes_on(state_dir: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: survivor\nrun: |\n  echo one\n  until [ -e go ]; do sleep 0.1; done\n  echo two\n")
    up = Up(state_dir)
    try:
        started = up.perak("run", str(job), "--detach", "--json")
        identity = json.loads(started.stdout)["id"]
        up.until(lambda client: b"one" in b"".join(client.logs(identity)))
        (exchange,) = [
            pid
            for pid, command in processes_below(up.process.pid).items()
            if " exchange " in f"{command} " and pid != up.process.pid
        ]
        os.kill(exchange, signal.SIGKILL)
        up.until(lambda client: client.job(identity).state == "running")
        (work,) = state_dir.glob("agent/runs/*/scratch/work")
        (work / "go").touch()
        up.until(lambda client: client.job(identity).state == "succeeded")
        shown = up.perak("show", identity, "--json")
        assert up.perak("logs", identity).stdout == "one\ntwo\n"
        assert json.loads(shown.stdout)["attempts"] == 1
    finally:
        up.stop()
