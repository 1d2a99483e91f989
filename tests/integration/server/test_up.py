"""`perak up` as a process: it starts, it is one, it revives its parts, it stops whole, and finds its data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

START_SECONDS = 60
STOP_SECONDS = 30


@contextlib.contextmanager
def up(state_dir: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `perak up` without an agent, and its URL; ended and waited for at the end."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "perak",
            "up",
            "--port",
            "0",
            "--no-agent",
            "--state-dir",
            str(state_dir),
            *options,
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        url = ""
        for line in process.stdout:
            if line.startswith("perak ready: "):
                url = line.split()[-1]
                break
        assert url, "it ended before it was ready"
        yield process, url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.stdout.close()


def client(state_dir: Path) -> httpx.Client:
    local = json.loads((state_dir / "local.json").read_text())
    return httpx.Client(base_url=local["url"], headers={"Authorization": f"Bearer {local['api_key']}"})


def processes_of(state_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(state_dir) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


@pytest.mark.timeout(180)
def test_up_lives_stops_and_comes_back(state_dir: Path) -> None:
    with up(state_dir) as (first, url):
        assert (state_dir / "local.json").stat().st_mode & 0o077 == 0
        with client(state_dir) as http:
            assert http.get("/v1/wallet").json()["available"] == "100.00"
            job = http.post("/v1/jobs", json={"job": {"name": "kept", "run": "true"}}).json()["id"]

        second = subprocess.run(
            [sys.executable, "-m", "perak", "up", "--state-dir", str(state_dir)],
            capture_output=True, text=True, timeout=START_SECONDS, check=False,
        )  # fmt: skip
        assert second.returncode != 0
        assert str(first.pid) in second.stderr
        assert url in second.stderr

        (exchange,) = [p for p in processes_of(state_dir) if _is_exchange(p)]
        os.kill(exchange, signal.SIGKILL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError), client(state_dir) as http:
                if http.get("/v1/me").status_code == 200:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the exchange was not started again")
    assert first.returncode == 0
    assert processes_of(state_dir) == []

    grid = state_dir / "grid.yaml"
    grid.write_text("zones: {DE: {feed: file, path: de.csv}}\n")
    (state_dir / "de.csv").write_text("time,DE\n2026-01-01T00:00:00Z,300\n")
    with up(state_dir, "--grid", str(grid)), client(state_dir) as http:
        assert [each["region"] for each in http.get("/v1/grid").json()["zones"]] == ["DE"]
        assert http.get(f"/v1/jobs/{job}").json()["state"] == "queued"
        assert http.get("/v1/wallet").json()["available"] == "100.00"
    assert processes_of(state_dir) == []


def _is_exchange(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "exchange" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return False
