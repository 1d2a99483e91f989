"""The parts apart: a PostgreSQL 15, an exchange and a node on two hosts, with TLS between them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from benchmarks.local import quiet_environment

READY_SECONDS_MAX = 60
EXCHANGE_ADDRESS, NODE_ADDRESS = "10.213.77.1", "10.213.77.2"


@dataclass(frozen=True)
class Host:
    """A network namespace: a machine of its own as far as the network can tell."""

    name: str
    home: Path

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-m", "perak", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        own = {"XDG_CONFIG_HOME": str(self.home), "HOME": str(self.home)}
        return {**quiet_environment(), **own, "PERAK_TIERS": "bubblewrap"}

    def perak(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[list[str]]:
        """A part of Perak until the block ends; what it printed until it was ready."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        timer = threading.Timer(READY_SECONDS_MAX, process.kill)
        timer.start()
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if "ready" in line:
                    break
            assert lines, f"perak {arguments[0]} did not get ready"
            timer.cancel()
            yield lines
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nsenter")):
        pytest.skip("two hosts on one machine need root, ip and nsenter")
    names = [f"perak-{os.getpid()}-{part}" for part in ("exchange", "node")]
    home = Path(tempfile.mkdtemp(prefix="perak-hosts-", dir="/var/tmp"))
    home.chmod(0o711)
    made = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True, check=False)
    if made.returncode:
        shutil.rmtree(home)
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "perak0", "netns", names[0], "type", "veth", "peer", "perak0", "netns", names[1])
        for name, address in zip(names, (EXCHANGE_ADDRESS, NODE_ADDRESS), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "perak0")
            ip("-n", name, "link", "set", "perak0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        folders = [home / part for part in ("exchange", "node")]
        for folder in folders:
            folder.mkdir(mode=0o711)
        yield Host(names[0], folders[0]), Host(names[1], folders[1])
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def test_a_node_joins_over_tls_by_invite_and_runs_a_job(hosts: tuple[Host, Host], postgres_15: str) -> None:
    exchange, node = hosts
    url = f"https://{EXCHANGE_ADDRESS}:8470"
    serve = ("exchange", "--database", postgres_15, "--listen", f"{EXCHANGE_ADDRESS}:8470", "--fund", "10")
    with exchange.running(*serve, "--state-dir", str(exchange.home / "state")) as lines:
        (key,) = [line.split()[-1] for line in lines if "key" in line]
        assert url in lines[-1]
        fingerprint = trusted_fingerprint(exchange.home / "state")
        node.perak("login", url, "--key", key, "--fingerprint", fingerprint)
        token = json.loads(node.perak("node", "invite", "--json"))["token"]
        state = node.home / "agent"
        offer = (
            "agent",
            "--exchange",
            url,
            "--state-dir",
            str(state),
            "--price-cpu",
            "0.02",
            "--region",
            "ID",
        )
        with node.running(*offer, "--invite", token, "--name", "second"):
            job = node.home / "job.yaml"
            job.write_text("name: apart\nrun: echo over there\n")
            assert node.perak("run", str(job)).startswith("over there\n")
            (found,) = json.loads(node.perak("node", "ls", "--json"))
            assert (found["name"], found["state"]) == ("second", "online")
        # The invite is used up; the node itself comes back without one.
        other = node.home / "other"
        again = subprocess.run(
            node.command("agent", "--invite", token, "--state-dir", str(other), "--price-cpu", "0.02"),
            env=node.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert again.returncode == 78, again.stderr
        assert "invite" in again.stderr
        with node.running(*offer):
            receipts = json.loads(node.perak("receipt", "ls", "--json"))
            assert len(receipts) == 1
        with pytest.raises(AssertionError, match=r"authority|fingerprint"):
            node.perak("login", url, "--key", key, "--as", "wrong", "--fingerprint", f"sha256:{'0' * 64}")


def test_perak_up_listens_beyond_its_machine_with_tls(hosts: tuple[Host, Host]) -> None:
    exchange, node = hosts
    state = exchange.home / "up"
    state.mkdir(mode=0o711)
    with exchange.running("up", "--state-dir", str(state), "--listen", f"{EXCHANGE_ADDRESS}:8471") as lines:
        url = f"https://{EXCHANGE_ADDRESS}:8471"
        assert lines[-1].endswith(url)
        local = json.loads((state / "local.json").read_text())
        fingerprint = trusted_fingerprint(state / "exchange")
        node.perak("login", url, "--key", local["api_key"], "--fingerprint", fingerprint)
        (own,) = json.loads(node.perak("node", "ls", "--json"))
        assert own["state"] == "online"


def trusted_fingerprint(state_dir: Path) -> str:
    """What the operator reads on the exchange's own machine, from the certificate it serves."""
    from perak.wire.identity import chain_from_pem, fingerprint

    (path,) = [p for p in (state_dir / "tls").iterdir() if b"BEGIN CERTIFICATE" in p.read_bytes()]
    return fingerprint(chain_from_pem(path.read_text())[-1])
