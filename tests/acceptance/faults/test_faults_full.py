"""Disks that are full: a run's own, and the database's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from acceptance.faults.faults import (
    check_books,
    counting,
    ended,
    finish,
    is_whole,
    last_tick,
    rows,
    run_folder,
    up,
)
from perak.client.config import Target

Healed = Callable[[str, float], None]
DATABASE_DISK_MB = 200
"""Holds a fresh database with its journal (some 80 MB), and is filled in no time."""


@pytest.fixture
def small_disk(state_dir: Path) -> Iterator[Path]:
    """A state folder whose database has a disk of its own, in memory."""
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root")
    options = f"size={DATABASE_DISK_MB}m,mode=711"
    (disk := state_dir / "postgres").mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "perak-test", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    yield state_dir
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_scratch_and_a_full_disk_of_the_exchange_lose_nothing(
    small_disk: Path, healed: Healed
) -> None:
    """What can't be written is refused, what was acknowledged stays, and a running job does not notice."""
    with up(small_disk, "--fund", "10") as perak:
        agent_dir = small_disk / "agent"
        began_at = time.monotonic()
        fills = {"name": "fills", "run": "echo begun; cat /dev/zero >big", "resources": {"disk": "20MB"}}
        done = ended(perak.client, perak.client.submit(fills).id)
        healed("a full scratch, the job has failed by name", time.monotonic() - began_at)
        assert (done.state, done.attempts, done.runs[0].cause) == ("failed", 1, "disk_full"), done

        job = perak.client.submit(counting("patient"))
        followed = perak.follow(job.id)
        followed.see(3)
        (run,) = perak.client.job(job.id).runs
        ballast = small_disk / "postgres" / "ballast"
        _fill(ballast)
        acknowledged = [job.id]
        refused = _submit_until_refused(perak.target, acknowledged)
        assert refused.status_code == 503, refused.text
        assert refused.json()["code"] in ("disk_full", "database_away")
        assert int(refused.headers["Retry-After"]) > 0
        written = last_tick((run_folder(agent_dir, run.id) / "log").read_bytes())
        ballast.unlink()
        began_at = time.monotonic()
        followed.see(written + 1)
        healed("a full disk of the exchange, the log goes on", time.monotonic() - began_at)
        finish(agent_dir, run.id)
        done = ended(perak.client, job.id)
        assert (done.state, done.attempts) == ("succeeded", 1), done
        assert is_whole(b"".join(perak.client.logs(job.id)))
        assert not followed.taken_back
        there = {row["id"] for row in rows(perak.database, "select id from job")}
        assert set(acknowledged) <= there
        for each in acknowledged[1:]:
            assert ended(perak.client, each).state == "succeeded"
        check_books(perak.database)


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))


def _submit_until_refused(target: Target, acknowledged: list[str]) -> httpx.Response:
    """PostgreSQL still has room in files that it made before: how much is its own business.

    The client would wait and try again, as it is told to; we don't.
    """
    headers = {"Authorization": f"Bearer {target.api_key}"}
    with httpx.Client(base_url=target.url, headers=headers, trust_env=False) as http:
        for number in range(2000):
            job = {"name": f"full-{number}", "run": "true", "env": {"BALLAST": "x" * 20_000}}
            answer = http.post("/v1/jobs", json={"job": job})
            if answer.status_code != 201:
                return answer
            acknowledged.append(answer.json()["id"])
    raise AssertionError("the disk never got full")
