"""Into a running job: a real pseudo-terminal, ports, and stock OpenSSH, through a whole Perak."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from acceptance.conftest import Shell

PATIENCE_SECONDS = 40.0
"""Only a failing test waits so long."""

SERVER = """
import hashlib, socket, threading
def serve(link):
    with link:
        digest, size = hashlib.sha256(), 0
        while data := link.recv(1 << 16):   # To the end of what comes,
            digest.update(data)
            size += len(data)
        link.sendall(f"{size} {digest.hexdigest()} ".encode())   # and then the other way.
        link.sendall(bytes(size))
server = socket.create_server(("127.0.0.1", 9000))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

JOB = f"""
name: within
env: {{GREETING: selamat}}
run: |
  echo own >own.txt
  cat >server.py <<'END'
{"".join(f"  {line}" for line in SERVER.splitlines(keepends=True))}
  END
  exec python3 server.py
"""


@pytest.fixture(scope="module")
def job(perak: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running job's id."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root may put a process into another user's sandbox")
    yield started(perak, tmp_path_factory.mktemp("job"), JOB, until="listening")
    perak("cancel", "within")


def started(perak: Shell, folder: Path, text: str, *, until: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    reply = perak("run", str(path), "--detach")
    assert reply.returncode == 0, reply.stderr
    identity = reply.stdout.strip()
    perak.until_logged(identity, until)
    return identity


@dataclass
class Typist:
    """A person at a terminal in which a command runs."""

    process: subprocess.Popen[bytes]
    terminal: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> None:
        """Until it is on the screen, after what was waited for before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.terminal], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]


@contextlib.contextmanager
def at_a_terminal(perak: Shell, *arguments: str) -> Iterator[Typist]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "perak", *arguments],
        env={**perak.environment(), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Typist(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_resizes_takes_ctrl_c_and_passes_on_the_exit_code(perak: Shell, job: str) -> None:
    with at_a_terminal(perak, "exec", job, "--", "bash", "--norc") as typist:
        typist.type("PS1='ready> '; stty size; tty\n")
        typist.wait_for("31 97")
        typist.wait_for("/dev/pts/")
        typist.resize(50, 120)
        typist.type("sleep 0.2; stty size\n")
        typist.wait_for("50 120")
        typist.type("sleep 600; echo slept\n")
        typist.wait_for("slept")  # what was typed
        time.sleep(0.3)
        typist.type("\x03")
        typist.wait_for("ready> ")
        typist.type("echo status $?\n")
        typist.wait_for("status 130")
        typist.type("exit 23\n")
        assert typist.process.wait(PATIENCE_SECONDS) == 23


def test_a_command_has_the_streams_and_gives_its_exit_code(perak: Shell, job: str) -> None:
    script = "cat; echo wrong >&2; echo $GREETING; cat own.txt; exit 5"
    reply = subprocess.run(
        [sys.executable, "-m", "perak", "exec", job, "--", "sh", "-c", script],
        env=perak.environment(), input="from here\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert reply.stdout == "from here\nselamat\nown\n"
    assert reply.stderr == "wrong\n"
    assert reply.returncode == 5
    assert perak("exec", job, "--", "no-such-thing").returncode == 127


def test_what_is_entered_is_as_confined_as_the_job(perak: Shell, job: str) -> None:
    """No capability, the same filter and namespaces, the job's user, no file of the node's, no open file."""
    look = (
        "grep -E '^(Cap|Seccomp|NoNewPrivs|Groups)' /proc/self/status; id -u; "
        "for each in user mnt pid net ipc uts; do "
        "[ $(readlink /proc/self/ns/$each) = $(readlink /proc/2/ns/$each) ] || echo other $each; done; "
        "ls /proc/self/fd; cat /proc/self/cgroup /proc/2/cgroup | sort | uniq -u; "
        "cat /etc/shadow /root/.profile 2>&1; unshare -U true 2>&1; mount -t tmpfs none /tmp 2>&1"
    )
    shown = perak("exec", job, "--", "sh", "-c", look).stdout
    status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", shown, re.MULTILINE))
    assert {status[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["Seccomp"], status["NoNewPrivs"], status["Groups"].strip()) == ("2", "1", "")
    assert "\n1000\n" in shown
    assert "other " not in shown
    assert "\n0\n1\n2\n3\n" in shown  # the three streams, and ls's own
    assert shown.count("No such file or directory") == 2
    assert "unshare failed: Operation not permitted" in shown
    assert "mount: /tmp: must be superuser" in shown


def test_nobody_inside_can_look_into_what_enters(perak: Shell, job: str) -> None:
    """The moments between entering and the command: nothing of the node shows in /proc."""
    watch = (
        "import os, re, time\n"
        "print('watching', flush=True)\n"
        "seen, end = set(), time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        "    for each in os.listdir('/proc'):\n"
        "        if each.isdigit() and int(each) != os.getpid():\n"
        "            for name in ('cmdline', 'environ', 'maps', 'cwd', 'root', 'fd', 'exe'):\n"
        "                try:\n"
        "                    path = f'/proc/{each}/{name}'\n"
        "                    got = open(path, 'rb').read() if name in ('cmdline', 'environ', 'maps') else (\n"
        "                        os.listdir(path) and b'' if name == 'fd' else os.readlink(path).encode())\n"
        "                except OSError:\n"
        "                    continue\n"
        "                seen |= set(re.findall(rb'[^\\0\\n ]*(?:enter|agent)[^\\0\\n ]*', got))\n"
        "print('seen', sorted(seen), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "perak", "exec", job, "--", "python3", "-c", watch],
        env=perak.environment(), stdout=subprocess.PIPE, text=True,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline() == "watching\n"
        for _ in range(2):
            assert perak("exec", job, "--", "true").returncode == 0
        assert watching.stdout.readline() == "seen []\n"


@contextlib.contextmanager
def forwarded(perak: Shell, job: str, port: int) -> Iterator[int]:
    """The port of this machine that leads to the job's."""
    with subprocess.Popen(
        [sys.executable, "-m", "perak", "forward", job, f"0:{port}"],
        env=perak.environment(), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield int(re.findall(r":(\d+) leads to", line)[0])
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0


def test_a_port_carries_much_both_ways_and_each_way_ends_by_itself(perak: Shell, job: str) -> None:
    blob = os.urandom(1 << 20) * 24
    with forwarded(perak, job, 9000) as port, socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(PATIENCE_SECONDS)
        writer = threading.Thread(target=lambda: (link.sendall(blob), link.shutdown(socket.SHUT_WR)))
        writer.start()
        received = b""
        while data := link.recv(1 << 20):
            received += data
        writer.join()
    size, digest, rest = received.split(b" ", 2)
    assert (int(size), digest.decode()) == (len(blob), hashlib.sha256(blob).hexdigest())
    assert rest == bytes(len(blob))


def test_a_port_on_which_nothing_listens_is_closed_at_once(perak: Shell, job: str) -> None:
    with forwarded(perak, job, 9999) as port, socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(PATIENCE_SECONDS)
        assert link.recv(1) == b""


@pytest.fixture
def ssh_config(perak: Shell, job: str, tmp_path: Path) -> Path:
    if shutil.which("ssh") is None:
        pytest.skip("no OpenSSH client on this machine (apt install openssh-client)")
    config = tmp_path / "config"
    config.write_text(perak("ssh-config", job).stdout)
    return config


def stock(perak: Shell, *command: str, **rest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=perak.environment(), capture_output=True, text=True, timeout=90, check=False, **rest
    )  # type: ignore[call-overload,no-any-return]


def test_stock_ssh_runs_commands_copies_files_and_forwards_ports(
    perak: Shell, ssh_config: Path, tmp_path: Path
) -> None:
    reply = stock(perak, "ssh", "-F", str(ssh_config), "perak-within", "wc -c; pwd; exit 7", input="12345")
    assert (reply.returncode, reply.stdout.split()) == (7, ["5", "/work"]), reply.stderr
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(3 << 20))
    if shutil.which("rsync") is None:
        pytest.skip("no rsync on this machine; ssh itself has passed")
    remote = f"ssh -F {ssh_config}"
    up = stock(perak, "rsync", "-e", remote, str(blob), "perak-within:copied")
    down = stock(perak, "rsync", "-e", remote, "perak-within:copied", str(tmp_path / "back"))
    assert (up.returncode, down.returncode) == (0, 0), up.stderr + down.stderr
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()


def test_perak_ssh_has_a_terminal_and_reaches_the_jobs_ports_alone(
    perak: Shell, job: str, ssh_config: Path
) -> None:
    with at_a_terminal(perak, "ssh", job) as typist:
        typist.type("stty size; hostname\n")
        typist.wait_for("31 97")
        typist.type("exit 4\n")
        assert typist.process.wait(PATIENCE_SECONDS) == 4
    elsewhere = stock(perak, "ssh", "-F", str(ssh_config), "-W", "192.0.2.1:80", "perak-within")
    assert "only the job's own ports" in elsewhere.stderr or elsewhere.returncode != 0
    own = stock(perak, "ssh", "-F", str(ssh_config), "-W", "localhost:9000", "perak-within", input="abc")
    assert own.stdout.startswith("3 "), own.stderr


def test_the_end_of_the_job_ends_the_terminal(perak: Shell, job: str, tmp_path: Path) -> None:
    other = started(perak, tmp_path, "name: short\nrun: |\n  echo up\n  sleep 600\n", until="up")
    with at_a_terminal(perak, "exec", other, "--", "sh", "-c", "echo inside; sleep 600") as typist:
        typist.wait_for("inside")
        assert perak("cancel", other).returncode == 0
        assert typist.process.wait(PATIENCE_SECONDS) != 0
    refused = perak("exec", other, "--", "true")
    assert refused.returncode != 0
    assert "over" in refused.stderr or "not running" in refused.stderr
