"""What a hostile job tries, and doesn't get."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sandbox_runs import Runs

from perak.agent.sandbox import Sandbox


@pytest.mark.parametrize(
    "attempt",
    [
        "cat /etc/shadow",
        "ls /root",
        "ls /home",
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        "touch /dev/x",
        "touch /job/x",
        "mknod /tmp/disk b 7 0",
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs none /tmp",
        "chown 0 /work",
        "ls /sys/fs/cgroup",
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sysrq-trigger",
        "ls /run/perak",
    ],
)
def test_an_attempt_is_refused(runs: Runs, attempt: str) -> None:
    status, log = runs.run(f"({attempt}) && echo GOT-THROUGH || echo refused")
    assert status.exit_code == 0
    assert log.splitlines()[-1] == "refused", log


def test_the_state_folder_is_out_of_sight(runs: Runs) -> None:
    _, log = runs.run(f"ls {runs.sandbox.state_dir} || echo refused")
    assert log.splitlines()[-1] == "refused"


def test_there_is_no_network(runs: Runs) -> None:
    _, log = runs.run("cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route | tail -n +2")
    assert log.split() in ([], ["lo"])


def test_only_the_runs_own_processes_are_seen(runs: Runs) -> None:
    _, log = runs.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'")
    assert int(log.split()[-1]) <= 8
    assert "pytest" not in log


def test_no_privilege_is_left(runs: Runs) -> None:
    _, log = runs.run("grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    fields = dict(line.split(":\t") for line in log.splitlines())
    assert fields.pop("NoNewPrivs") == "1"
    assert all(int(value, 16) == 0 for value in fields.values())


def test_refused_system_calls(runs: Runs) -> None:
    if runs.sandbox.host.seccomp is None:
        pytest.skip(runs.sandbox.host.seccomp_missing)
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no system Python to make raw system calls with")
    calls = {"keyctl": 250, "bpf": 321, "perf_event_open": 298, "io_uring_setup": 425, "userfaultfd": 323}
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are x86_64's")
    script = f"""
import ctypes, errno, fcntl, os, socket
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {calls!r}.items():
    result = libc.syscall(number, 0, 0, 0, 0, 0)
    print(name, result, errno.errorcode.get(ctypes.get_errno()))
print("clone3", libc.syscall(435, 0, 0), errno.errorcode.get(ctypes.get_errno()))
for name, family in {{"vsock": 40, "alg": 38, "bluetooth": 31, "packet": 17}}.items():
    try:
        socket.socket(family, socket.SOCK_STREAM if family == 40 else socket.SOCK_RAW)
    except OSError as error:
        print(name, -1, errno.errorcode[error.errno])
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    socket.socket(family, socket.SOCK_STREAM).close()
master, slave = os.openpty()
try:
    fcntl.ioctl(slave, 0x5412, b"x")
except OSError as error:
    print("tiocsti", -1, errno.errorcode[error.errno])
"""
    _, log = runs.run(f"/usr/bin/python3 -I -S - <<'END'\n{script}\nEND")
    answers = {line.split()[0]: line.split()[1:] for line in log.splitlines()}
    assert answers.pop("clone3") == ["-1", "ENOSYS"]
    for family in ("vsock", "alg", "bluetooth", "packet"):
        assert answers.pop(family) == ["-1", "EAFNOSUPPORT"]
    assert answers == {name: ["-1", "EPERM"] for name in (*calls, "tiocsti")}


def test_runs_at_the_same_time_have_different_users_and_cannot_read_each_other(runs: Runs) -> None:
    ids = [runs.start("umask 000; echo secret > /work/s; echo ready; sleep 30") for _ in range(8)]
    for run_id in ids:
        runs.until_logged(run_id, "ready")
    works = [runs.sandbox.work_folder(run_id) for run_id in ids]
    owners = [(work / "s").stat().st_uid for work in works]
    assert len(set(owners)) == len(ids)
    assert 0 not in owners
    assert _can_read(works[0] / "s", owners[0])
    assert not _can_read(works[0] / "s", owners[1])
    for name in ("run.json", "launch.json", "shim.json", "log", "scratch.img"):
        assert not _can_read(works[0].parents[1] / name, owners[0])
    assert not _can_read(works[0].parents[1] / "scripts" / "run", owners[1])


def test_nothing_that_the_agent_has_open_is_inherited(runs: Runs) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    runs.sandbox.close()  # so that what forks the shims starts anew, with this pipe
    try:
        _, log = runs.run("ls -l /proc/self/fd")
    finally:
        inode = os.fstat(writer).st_ino
        os.close(reader)
        os.close(writer)
    assert f"pipe:[{inode}]" not in log
    assert len(log.splitlines()) <= 7, log  # three streams, ls's own, the script, the pipe that let it start


def test_a_state_folder_that_runs_cannot_reach_is_refused_with_the_reason(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    sandbox, report = Sandbox.probe(closed / "state")
    assert sandbox is None
    assert not report.available
    assert "closed to other users" in (report.reason or "")
    shutil.rmtree(closed)


def _can_read(path: Path, uid: int) -> bool:
    """Whether `path` opens for that user, tried in a child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            path.read_bytes()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
