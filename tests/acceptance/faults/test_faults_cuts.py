"""The network between exchange and node is cut: shortly, for too long, and for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from benchmarks.local import quiet_environment

from acceptance.faults.faults import (
    BEAT_SECONDS,
    FULL_LENGTH,
    QUICK,
    Followed,
    check_books,
    counting,
    ended,
    finish,
    is_whole,
    last_tick,
    rows,
    run_folder,
    shim_pid,
    until,
)
from perak import Client
from perak.adapters.postgres import EmbeddedPostgres
from perak.agent.sandbox.scratch import mounted_under
from perak.client.config import Target
from perak.wire.receipts import verify_receipt

Healed = Callable[[str, float], None]
CLONE_NEWNET = 0x4000_0000  # linux/sched.h
EXCHANGE, NODE = "10.213.78.1", "10.213.78.2"
SHORT_CUT_SECONDS, LONG_CUT_SECONDS = (60, 1200) if FULL_LENGTH else (5, 4)
GRACE_SECONDS = 300 if FULL_LENGTH else 1
"""Of the runs that are to be fenced; at full length the default of every job."""
REPORT_WITHIN_SECONDS = 3
LIVES = {
    # Certificates end within the short cut, instead of after a day.
    "PERAK_CERTIFICATE_LIFE_SECONDS": "86400" if FULL_LENGTH else "4",
    "PERAK_REPORT_WITHIN_SECONDS": str(REPORT_WITHIN_SECONDS),
}
NOBODY = "02:00:00:00:00:99"
"""A hardware address that no host has: frames to it vanish, and nobody is told."""


@dataclass
class Part:
    """A part of Perak on a host of its own: a network namespace."""

    arguments: tuple[str, ...]
    home: Path
    env: dict[str, str]
    host: str | None = None
    """Another than the test's."""
    said: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it; its ready line."""
        elsewhere = ["nsenter", f"--net=/run/netns/{self.host}"] if self.host else []
        self.process = subprocess.Popen(
            [*elsewhere, sys.executable, "-m", "perak", *self.arguments],
            env={**quiet_environment(), **QUICK, "HOME": str(self.home), **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        until(lambda: any("ready" in line for line in self.said) or self.process.poll(), self.arguments[0])
        assert self.process.poll() is None, "".join(self.said)
        return next(line for line in self.said if "ready" in line)

    def _listen(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


@dataclass
class Net:
    """An exchange on one host, where the test is too, a node on another, and a cable between them."""

    here: str
    node: str
    target: Target
    client: Client
    database: str
    agent: Part
    agent_dir: Path

    def pull_the_cable(self) -> None:
        ip("-n", self.node, "link", "set", "perak1", "down")

    def plug_it_in(self) -> None:
        ip("-n", self.node, "link", "set", "perak1", "up")

    def lose_packets(self) -> None:
        """From now on every packet either way vanishes without a word: no reset, no error, the link is up."""
        for host, other in ((self.here, NODE), (self.node, EXCHANGE)):
            ip("-n", host, "neigh", "replace", other, "lladdr", NOBODY, "dev", "perak1", "nud", "permanent")

    def find_packets(self) -> None:
        for host, other in ((self.here, NODE), (self.node, EXCHANGE)):
            ip("-n", host, "neigh", "delete", other, "dev", "perak1")

    def begin(self, name: str, *, grace_seconds: int, **more: Any) -> tuple[Followed, str]:
        """A counting job that runs and is followed, and its run, of which there is evidence."""
        self.plug_it_in()
        job = self.client.submit(counting(name, disconnect_grace=f"{grace_seconds}s", **more))
        followed = Followed(self.target, job.id)
        followed.see(8)
        (run,) = self.client.job(job.id).runs
        evidence = "select id from run where evidence_until is not null and id = "
        until(lambda: rows(self.database, f"{evidence} '{run.id}'"), "evidence of the run")
        return followed, run.id

    def log_of(self, run: str) -> bytes:
        """What the run has written so far, on its own machine."""
        return (run_folder(self.agent_dir, run) / "log").read_bytes()


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nsenter")):
        pytest.skip("two hosts on one machine need root, ip and nsenter")
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="perak-cuts-", dir="/var/tmp"))
        home.chmod(0o711)
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        here, there = (f"perak-{os.getpid()}-cut-{part}" for part in ("exchange", "node"))
        for name in (here, there):
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        ip("link", "add", "perak1", "netns", here, "type", "veth", "peer", "perak1", "netns", there)
        for name, address in ((here, EXCHANGE), (there, NODE)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "perak1")
            for device in ("perak1", "lo"):
                ip("-n", name, "link", "set", device, "up")
        stack.enter_context(_on_host(here))
        yield stack.enter_context(_parts(home, here, there))


@contextlib.contextmanager
def _on_host(name: str) -> Iterator[None]:
    """This thread, and all that it starts, live on that host (setns(2); Python has it from 3.12 on)."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)
        os.close(there)


@contextlib.contextmanager
def _parts(home: Path, here: str, node: str) -> Iterator[Net]:
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(EmbeddedPostgres(home))
        key = "perak_" + secrets.token_urlsafe(32)
        serve = ("exchange", "--listen", f"{EXCHANGE}:8470", "--fund", "10", "--log-level", "warning")
        private = {"PERAK_DATABASE_URL": database, "PERAK_OPERATOR_KEY": key, **LIVES}
        exchange = Part((*serve, "--state-dir", str(home / "exchange")), home, private)
        stack.callback(exchange.end)
        exchange.start()
        (path,) = [p for p in (home / "exchange" / "tls").iterdir() if b"BEGIN CERT" in p.read_bytes()]
        authority = path.read_text()[path.read_text().rindex("-----BEGIN") :]
        target = Target(url=f"https://{EXCHANGE}:8470", api_key=key, ca_certificate=authority)
        client = stack.enter_context(Client(target=target))
        dial = ("agent", "--exchange", target.url, "--state-dir", str(home / "agent"), "--price-cpu", "0.02")
        invite = {"PERAK_INVITE": client.invite().token}
        agent = Part((*dial, "--drain-on-exit", "--log-level", "warning"), home, invite, host=node)
        stack.callback(agent.end)
        agent.start()
        yield Net(here, node, target, client, database, agent, home / "agent")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def lasting(seconds: float, *, since: float) -> None:
    """Wait until something has lasted for so long; `since` is of the monotonic clock."""
    time.sleep(max(0.0, since + seconds - time.monotonic()))


def test_a_cut_shorter_than_the_grace_leaves_the_run_alone(net: Net, healed: Healed) -> None:
    followed, run = net.begin("short-cut", grace_seconds=max(60, GRACE_SECONDS))
    shim = shim_pid(net.agent_dir, run)
    net.pull_the_cable()
    cut_at = time.monotonic()
    until(lambda: any("silent" in step for step in followed.steps), "that the renter is told")
    assert net.client.job(followed.job).node_silent
    healed(f"a cut: the renter is told ({3 * BEAT_SECONDS:g} s of silence)", time.monotonic() - cut_at)
    lasting(SHORT_CUT_SECONDS, since=cut_at)
    net.plug_it_in()
    began_at = time.monotonic()
    written = last_tick(net.log_of(run))
    followed.see(written + 1)
    healed(f"a cut of {SHORT_CUT_SECONDS} s, within the grace, the log goes on", time.monotonic() - began_at)
    assert shim_pid(net.agent_dir, run) == shim
    finish(net.agent_dir, run)
    done = ended(net.client, followed.job)
    assert (done.state, done.attempts) == ("succeeded", 1), done
    until(lambda: followed.ended, "the follower's end")
    assert is_whole(followed.shown[1])
    assert not followed.taken_back
    # Settled in full: the time of the silence too, as signed reports prove it.
    receipt = net.client.receipt(done.runs[0].receipt)
    assert receipt.receipt["billed_seconds"] >= last_tick(followed.shown[1]) * 0.1
    # The node's certificate ended within the cut, and what it signed then proves itself all the same.
    verified = verify_receipt(receipt.model_dump_json())
    assert verified.valid, [check for check in verified.checks if not check.passed]
    check_books(net.database)


def test_packets_that_vanish(net: Net, healed: Healed) -> None:
    """No reset and no error: missing beats tell both ends, and a new session replaces the old one."""
    followed, run = net.begin("lossy", grace_seconds=max(60, GRACE_SECONDS))
    shim = shim_pid(net.agent_dir, run)
    net.agent.said.clear()
    net.lose_packets()
    began_at = time.monotonic()
    until(lambda: net.client.job(followed.job).node_silent, "that the exchange notices")
    healed("packets vanish: the exchange has noticed", time.monotonic() - began_at)
    until(lambda: any("the exchange was silent" in line for line in net.agent.said), "that the agent notices")
    healed("packets vanish: the agent has noticed", time.monotonic() - began_at)
    net.find_packets()
    began_at = time.monotonic()
    followed.see(last_tick(net.log_of(run)) + 1)
    healed("packets come through again, the log goes on", time.monotonic() - began_at)

    # The agent dies where its end can't be told: its session seems open, and the next agent needs it.
    net.lose_packets()
    net.agent.end(signal.SIGKILL)
    net.agent.said.clear()
    net.find_packets()
    began_at = time.monotonic()
    net.agent.start()
    followed.see(last_tick(net.log_of(run)) + 1)
    healed("a new agent behind a half-open session, the log goes on", time.monotonic() - began_at)
    assert shim_pid(net.agent_dir, run) == shim
    (node,) = net.client.nodes()
    assert "a second agent" not in str(net.client.node(node.id).notice)
    finish(net.agent_dir, run)
    done = ended(net.client, followed.job)
    assert (done.state, done.attempts) == ("succeeded", 1), done
    until(lambda: followed.ended, "the follower's end")
    assert is_whole(followed.shown[1])
    assert not followed.taken_back
    check_books(net.database)


def test_a_run_whose_end_is_never_reported(net: Net, healed: Healed) -> None:
    """Its shim hangs, and the agent beats on: the exchange ends the run, and the job is run again."""
    followed, run = net.begin("stuck", grace_seconds=60, limits={"max_duration": "4s"})
    shim = shim_pid(net.agent_dir, run)
    os.kill(shim, signal.SIGSTOP)
    began_at = time.monotonic()
    try:
        fenced = until(
            lambda: now if (now := net.client.job(followed.job)).runs[0].state == "fenced" else None,
            "the end",
        )
        silence = f"{REPORT_WITHIN_SECONDS} s after max_duration"
        healed(f"a stuck shim, the exchange ends its run {silence}", time.monotonic() - began_at)
        assert "did not report the run's end" in fenced.runs[0].detail
        assert net.client.cancel(followed.job).state in ("cancelled", "cancelling")
    finally:
        os.kill(shim, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{shim}").exists(), "the end of the stale run")
    (node,) = net.client.nodes()
    assert "did not report the run's end" in (net.client.node(node.id).notice or "")
    ended(net.client, followed.job)
    check_books(net.database)


def test_a_cut_longer_than_the_grace_fences_the_run(net: Net, healed: Healed) -> None:
    """The stale run is billed to its last evidence, ends itself when it learns so, and settles nothing."""
    followed, run = net.begin("long-cut", grace_seconds=GRACE_SECONDS)
    shim = shim_pid(net.agent_dir, run)
    seen = followed.shown[1]
    net.pull_the_cable()
    cut_at, pulled_at = datetime.now(UTC), time.monotonic()
    fenced = until(
        lambda: now if (now := net.client.job(followed.job)).runs[0].state == "fenced" else None, "the fence"
    )
    silence = datetime.now(UTC) - cut_at
    healed(f"a cut beyond the grace of {GRACE_SECONDS} s, the run is fenced", silence.total_seconds())
    assert fenced.state == "queued"
    assert fenced.runs[0].ended_at <= cut_at, "billed beyond the last signed evidence"
    assert float(fenced.runs[0].cost) > 0
    receipt = net.client.receipt(fenced.runs[0].receipt)
    verified = verify_receipt(receipt.model_dump_json())
    assert verified.valid, [check for check in verified.checks if not check.passed]
    lasting(LONG_CUT_SECONDS, since=pulled_at)
    assert Path(f"/proc/{shim}").exists(), "execution goes on where nobody can tell of the fence"
    net.plug_it_in()
    began_at = time.monotonic()
    followed.see(1, attempt=2)
    healed(f"a cut of {LONG_CUT_SECONDS} s, the job runs again", time.monotonic() - began_at)
    until(lambda: not Path(f"/proc/{shim}").exists(), "the end of the stale run")
    healed(f"a cut of {LONG_CUT_SECONDS} s, the stale run has ended", time.monotonic() - began_at)
    finish(net.agent_dir, net.client.job(followed.job).runs[1].id)
    done = ended(net.client, followed.job)
    assert (done.state, done.attempts) == ("succeeded", 2), done
    assert done.runs[0] == fenced.runs[0], "the stale run settled something"
    assert b"".join(net.client.logs(followed.job, attempt=1)).startswith(seen)
    assert is_whole(b"".join(net.client.logs(followed.job)))
    check_books(net.database)


def test_a_node_that_is_gone_for_good(net: Net, healed: Healed) -> None:
    """Its run is billed to the last evidence, the node is offline, and the job waits for another one."""
    followed, run = net.begin("gone", grace_seconds=GRACE_SECONDS)
    shim = shim_pid(net.agent_dir, run)
    began_at = time.monotonic()
    assert net.agent.process is not None
    net.agent.end(signal.SIGKILL)
    os.kill(shim, signal.SIGKILL)
    until(lambda: net.client.job(followed.job).state == "queued", "the fence")
    healed("a node is gone for good, its job is free for another", time.monotonic() - began_at)
    until(lambda: [n.state for n in net.client.nodes()] == ["offline"], "the node is offline")
    healed("a node is gone for good, it is shown as offline", time.monotonic() - began_at)
    assert net.client.cancel(followed.job).state == "cancelled"
    kept = b"".join(net.client.logs(followed.job, attempt=1))
    assert kept.startswith(followed.shown[1])
    assert is_whole(kept)
    check_books(net.database)
    # It comes back after all: what it still has settles nothing, and is cleared away.
    before = net.client.job(followed.job)
    net.agent.said.clear()
    net.agent.start()
    until(lambda: not mounted_under(net.agent_dir), "that the scratch of its run is gone")
    assert net.client.job(followed.job) == before
    check_books(net.database)
