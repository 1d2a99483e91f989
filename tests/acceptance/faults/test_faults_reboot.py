"""A machine is switched off in the middle of a job, with all that runs on it, and on again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.local import processes_below

from acceptance.faults.faults import Up, check_books, counting, ended, finish, is_whole, until
from perak.wire.receipts import verify_receipt

Healed = Callable[[str, float], None]
CONTROL_GROUPS = Path("/sys/fs/cgroup")
BOOT = """
kept=$(mktemp -d) && cp -a /run/perak/checked/. "$kept"
mount -t tmpfs perak-run /run && mkdir -p /run/perak && mv "$kept" /run/perak/checked && { "$@" & wait; }
"""
"""The first process of a machine: it buries orphans, and its /run has only what is known of the sandbox
on this kernel: to find that out takes seconds."""
RECORDS = ("launch.json", "shim.json", "spawn.json")
"""They name the boot. The kernel's own id can't be another one here: a /proc with a mount on it is refused to
sandboxes."""


class Machine:
    """Process and mount namespaces: its processes die at once, and its mounts go with the last of them."""

    def __init__(self, state_dir: Path, *options: str) -> None:
        inside = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
        self.up = Up(state_dir, *options, env={}, inside=(*inside, "sh", "-c", BOOT, "boot"))

    def cut_the_power(self) -> None:
        """kill -9 of everything; control groups, which outlive their processes here, go too."""
        pids = list(processes_below(self.up.process.pid))
        groups = {group for pid in pids if (group := _group_of(pid)) is not None}
        self.up.client.close()
        self.up.process.kill()
        self.up.process.wait(30)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of every process")
        for record in (r for name in RECORDS for r in self.up.state_dir.glob(f"agent/runs/*/{name}")):
            record.write_text(json.dumps(json.loads(record.read_text()) | {"boot_id": str(uuid.uuid4())}))
        for group in sorted(groups, reverse=True):
            with contextlib.suppress(OSError):  # it is the test's own, or another machine's
                group.rmdir()

    def switch_off(self) -> None:
        self.up.client.close()
        below = processes_below(self.up.process.pid)
        for pid in (
            pid for pid, command in below.items() if " -m perak up " in command and "sh -c" not in command
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.up.process.wait(30)
        self.up.process.kill()


def _group_of(pid: int) -> Path | None:
    """The control group of a run's process; None for those that have none of their own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            path = line.split(":", 2)[2]
            if "perak" in path:
                return CONTROL_GROUPS / path.lstrip("/")
    return None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_machine_is_switched_off_and_on(state_dir: Path, healed: Healed) -> None:
    """Database, exchange and node find all that was acknowledged; the job that ran is run again."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a machine of its own needs root and unshare")
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.decode().strip()}")
    agent_dir = state_dir / "agent"
    port = str(_free_port())  # the same before and after: its follower dials on
    machine = Machine(state_dir, "--fund", "10", "--port", port)
    try:
        client = machine.up.client
        done = ended(client, client.submit({"name": "before", "run": "echo once"}).id)
        before = client.receipt(done.runs[0].receipt).model_dump_json()
        job = client.submit(counting("interrupted"))
        followed = machine.up.follow(job.id)
        followed.see(8)
        until(lambda: client.job(job.id).runs[0].state == "running", "that the run is known")
        shown = followed.shown[1]
    finally:
        machine.cut_the_power()
    mounts = Path("/proc/mounts").read_text()
    assert str(agent_dir) not in mounts
    assert (
        str(agent_dir)
        not in subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=False).stdout
    )

    began_at = time.monotonic()
    machine = Machine(state_dir, "--port", port)
    try:
        client = machine.up.client
        followed.see(1, attempt=2)
        healed("a machine is switched off and on, the job runs again", time.monotonic() - began_at)
        again = client.job(job.id)
        assert again.runs[0].detail == "the node restarted during the run"
        assert client.receipt(done.runs[0].receipt).model_dump_json() == before
        agent = machine.up.pid("agent")  # who sees the mounts of this machine
        finish(Path(f"/proc/{agent}/root{agent_dir}"), again.runs[1].id)
        over = ended(client, job.id)
        assert (over.state, over.attempts) == ("succeeded", 2), over
        assert b"".join(client.logs(job.id, attempt=1)).startswith(shown)
        assert is_whole(b"".join(client.logs(job.id)))
        for run in over.runs:
            verified = verify_receipt(client.receipt(run.receipt).model_dump_json())
            assert verified.valid, [check for check in verified.checks if not check.passed]
        until(lambda: followed.ended, "the follower's end")
        assert not followed.taken_back
        check_books(machine.up.database)
    finally:
        machine.switch_off()
