"""Disks that are full: the agent's own, under its journal, and the exchange's folder of blobs."""

from __future__ import annotations

import contextlib
import os
import shutil
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
    run_folder,
    until,
    up,
)
from perak.wire.receipts import verify_receipt

Healed = Callable[[str, float], None]
MB = 2**20
DISKS = {"agent": 8_000, "exchange/blobs": 8}
"""Megabytes, in files with holes: an agent reserves 5 GB by default, and blobs need no more."""


@pytest.fixture
def small_disks(state_dir: Path) -> Iterator[Path]:
    """A state folder in which agent and blobs have disks of their own."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("small disks need root and mkfs.ext4")
    with contextlib.ExitStack() as stack:
        for name, size in DISKS.items():
            (disk := state_dir / name).mkdir(parents=True)
            image = state_dir / f"{disk.name}.img"
            with image.open("wb") as file:
                file.truncate(size * MB)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
            made = subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"nothing can be mounted here: {made.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
            disk.chmod(0o711)
        (state_dir / "exchange").chmod(0o711)
        yield state_dir


def fill(disk: Path) -> Path:
    """Leave no room on a disk."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file:
        for size in (100 * MB, MB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
    return ballast


def test_full_disks_of_the_agent_and_of_the_blobs(small_disks: Path, healed: Healed) -> None:
    agent_dir, blobs = small_disks / "agent", small_disks / "exchange" / "blobs"
    with up(small_disks, "--fund", "10") as perak:
        setup = "head -c 1000000 /dev/zero >result"
        job = perak.client.submit(counting("patient", outputs=["result"], setup=setup))
        followed = perak.follow(job.id)
        followed.see(3)
        (run,) = perak.client.job(job.id).runs
        assert (agent_dir / "room").stat().st_size == 32 * MB

        # The agent's disk: it says so, offers nothing, and goes on with its run by the room that it kept.
        ballast = fill(agent_dir)
        began_at = time.monotonic()
        until(lambda: any("the room that was kept" in line for line in perak.said), "that the agent says so")
        (node,) = perak.client.nodes()
        until(lambda: "is full" in (perak.client.node(node.id).notice or ""), "that its owner is told")
        followed.see(last_tick((run_folder(agent_dir, run.id) / "log").read_bytes()) + 1)
        healed("a full disk under the agent, the log goes on", time.monotonic() - began_at)
        refused = perak.client.submit({"name": "later", "run": "true"})

        # Full once more: now it waits for room. What the job writes waits with it, and nothing is lost.
        more = fill(agent_dir)
        until(lambda: any("waits for room" in line for line in perak.said), "that the agent waits")
        assert more == ballast
        ballast.unlink()
        began_at = time.monotonic()
        followed.see(last_tick((run_folder(agent_dir, run.id) / "log").read_bytes()) + 1)
        healed(
            "a disk under the agent that is full again and freed, the log goes on",
            time.monotonic() - began_at,
        )
        assert ended(perak.client, refused.id).state == "succeeded"

        # The blobs' disk: what can't be kept is refused, and the outputs wait on their node.
        ballast = fill(blobs)
        headers = {"Authorization": f"Bearer {perak.target.api_key}"}
        with httpx.Client(base_url=perak.target.url, headers=headers, trust_env=False) as http:
            digest = "sha256:30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"
            answer = http.put(f"/v1/blobs/{digest}", content=b"\0" * MB)
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_full"), answer.text
        finish(agent_dir, run.id)
        until(lambda: (run_folder(agent_dir, run.id) / "exit.json").exists(), "the end of the job")
        time.sleep(1)
        assert perak.client.job(job.id).state == "running", "it waits for its outputs"
        ballast.unlink()
        began_at = time.monotonic()
        done = ended(perak.client, job.id)
        healed("a full disk of the blobs, the outputs are there", time.monotonic() - began_at)
        assert (done.state, done.attempts) == ("succeeded", 1), done
        assert done.has_outputs
        until(lambda: followed.ended, "the follower's end")
        assert is_whole(followed.shown[1])
        assert not followed.taken_back
        receipt = verify_receipt(perak.client.receipt(done.runs[0].receipt).model_dump_json())
        assert receipt.valid, [check for check in receipt.checks if not check.passed]
        check_books(perak.database)
