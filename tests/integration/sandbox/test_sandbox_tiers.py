"""Every tier keeps the promises of a run: its log, its end, its limits, and nothing left behind.

A tier whose runtime isn't on this machine, or that the machine refuses, is skipped with the reason.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox_runs import MIB, Runs

from perak.agent.sandbox import ImageRoot, RunStatus, Sandbox, TierReport, process
from perak.agent.sandbox.sandbox import _read_shim
from perak.agent.sandbox.scratch import mounted_under
from perak.agent.sandbox.tiers import RUNTIMES
from perak.agent.sandbox.tiers import probe as tiers_probe
from perak.agent.sandbox.tiers.microvm import Microvm
from perak.agent.sandbox.tiers.probe import find_runtime, why_not_here
from perak.agent.tunnels import inside
from perak.agent.tunnels.ports import connect_inside
from perak.agent.tunnels.services import read_some

MEMORY = {"gvisor": 256 * MIB, "microvm": 384 * MIB}
"""Their own kernels live in the run's memory too."""


GLIBC_OWN = 1 << 31 | 1 << 32
"""The signals 32 and 33 are of the C library: a program can set neither, and what is spawned ignores them."""


@pytest.fixture(params=["bubblewrap", *RUNTIMES])
def tier(request: pytest.FixtureRequest, probed: tuple[Sandbox, TierReport]) -> str:
    """A tier whose runtime starts here, whether it is good enough to be offered or not."""
    name: str = request.param
    if name in RUNTIMES:
        sandbox = probed[0]
        candidate = find_runtime(sandbox, RUNTIMES[name])
        if candidate is None:
            pytest.skip(f"{name}: {RUNTIMES[name].missing()}")
        if reason := why_not_here(sandbox, RUNTIMES[name]):
            pytest.skip(f"{name}: {reason}")
    return name


Start = Callable[..., str]


@pytest.fixture
def start(runs: Runs, tier: str) -> Start:
    """Start a run in the tier."""

    def begin(command: str | None, **changes: Any) -> str:
        memory = MEMORY.get(tier, 128 * MIB)
        return runs.start(command, **{"tier": tier, "memory_bytes": memory, **changes})

    return begin


def ended(runs: Runs, run_id: str) -> tuple[RunStatus, str]:
    status = runs.until(run_id, lambda status: status.state in ("exited", "lost"))
    return status, runs.log(run_id)


def test_a_run_has_its_files_its_log_and_its_exit_code(runs: Runs, start: Start, tier: str) -> None:
    run_id = start(
        "cat /work/made; echo $GREETING; pwd; echo kept > /tmp/x; echo err >&2; cat /proc/version; exit 7",
        setup="echo by setup > /work/made",
        env={"GREETING": "hello, tier"},
    )
    status, log = ended(runs, run_id)
    assert (status.state, status.cause, status.exit_code) == ("exited", "exited", 7), (status, log)
    # runc hands on what is said and what is complained of by two pipes, so their order is not kept.
    said = log.splitlines()[:4]
    assert sorted(said) == ["/work", "by setup", "err", "hello, tier"]
    assert [line for line in said if line != "err"] == ["by setup", "hello, tier", "/work"]
    own_kernel = tier in RUNTIMES and RUNTIMES[tier].own_kernel
    assert (os.uname().release in log) != own_kernel
    assert (runs.sandbox.work_folder(run_id) / "made").read_text() == "by setup\n"
    assert status.cpu_seconds is None or status.cpu_seconds > 0


def test_a_run_that_writes_faster_than_its_log_is_read_waits(runs: Runs, start: Start) -> None:
    flags = "import fcntl, os; print([fcntl.fcntl(each, fcntl.F_GETFL) & os.O_NONBLOCK for each in (1, 2)])"
    status, log = ended(runs, start(f"python3 -c '{flags}'"))
    assert (status.exit_code, log) == (0, "[0, 0]\n")


def test_a_run_is_confined(runs: Runs, start: Start) -> None:
    script = f"""
    for path in /etc/shadow /root {runs.sandbox.state_dir} /sys/fs/cgroup/memory /bundle /program; do
        if [ -e $path ]; then echo "sees $path"; fi
    done
    for folder in / /usr /etc /job /proc/sys/kernel; do
        if touch $folder/perak-check 2>/dev/null; then echo "writes to $folder"; fi
    done
    grep -E '^Cap(Prm|Eff|Bnd):' /proc/self/status | grep -v 0000000000000000 || true
    sed -n '3,$s/:.*//p' /proc/net/dev | grep -v lo || true
    if unshare -U true 2>/dev/null; then echo "makes a user namespace"; fi
    echo done
    """
    status, log = ended(runs, start(script))
    assert (status.exit_code, log) == (0, "done\n")


def test_a_stop_asks_first_and_then_kills(runs: Runs, start: Start) -> None:
    asked = start("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done")
    stubborn = start("trap '' TERM; echo up; while :; do sleep 0.1; done")
    for run_id in (asked, stubborn):
        runs.until_logged(run_id, "up")
    runs.sandbox.stop(asked, reason="enough", grace_seconds=10)
    runs.sandbox.stop(stubborn, reason="enough", grace_seconds=0.3)
    status, log = ended(runs, asked)
    assert (status.cause, status.exit_code, "bye" in log) == ("stopped", 3, True), status
    status, log = ended(runs, stubborn)
    assert (status.cause, status.signal) == ("stopped", signal.SIGKILL), status
    assert runs.sandbox.job_pids(stubborn) == set()


def test_limits_hold(runs: Runs, start: Start, probed: tuple[Sandbox, TierReport], tier: str) -> None:
    enforced = probed[1].enforced
    limit = MEMORY.get(tier, 64 * MIB)
    hog = start(f"head -c {2 * limit} /dev/zero | tail -c {2 * limit} >/dev/null", memory_bytes=limit)
    filler = start("head -c 64M /dev/zero > /work/fill", disk_bytes=8 * MIB)
    # Far beyond the limit: gVisor's is on its own tasks, of which a process may take two or less.
    forker = start("for i in $(seq 500); do sleep 5 & done; echo all of them", pids_max=50)
    endless = start("echo on; sleep 60", max_duration_seconds=1.0, grace_seconds=0.1)
    if "memory" in enforced:
        status, _ = ended(runs, hog)
        assert status.cause == "oom", status
    if "disk" in enforced:
        status, _ = ended(runs, filler)
        assert status.cause == "disk_full", status
    if "pids" in enforced:
        _, log = ended(runs, forker)
        assert "all of them" not in log
    status, _ = ended(runs, endless)
    assert status.cause == "max_duration"


def test_nothing_is_left_of_a_run_that_is_released(runs: Runs, start: Start) -> None:
    run_id = start("sleep 100 & setsid sleep 100 & echo hidden > /dev/shm/x || true; echo done")
    ended(runs, run_id)
    folder = runs.sandbox.folder(run_id)
    owner = runs.sandbox.work_folder(run_id).stat().st_uid
    assert process.owned_by(owner) == set()
    runs.sandbox.release(run_id)
    assert not folder.exists()
    assert mounted_under(folder) == []
    groups = runs.sandbox.host.groups
    assert groups is None or run_id not in groups.names()


def test_nothing_is_left_of_a_run_whose_shim_is_killed(runs: Runs, start: Start) -> None:
    run_id = start("setsid sleep 100 & echo up; sleep 100")
    runs.until_logged(run_id, "up")
    owner = runs.sandbox.work_folder(run_id).stat().st_uid
    assert process.owned_by(owner)
    shim, _ = _read_shim(runs.sandbox.folder(run_id))
    assert shim is not None
    process.kill(shim)
    status = runs.until(run_id, lambda status: not process.owned_by(owner))
    assert status.state == "lost"


def test_an_agent_that_restarts_finds_the_run(runs: Runs, start: Start) -> None:
    run_id = start("echo up; while [ ! -e /work/go ]; do sleep 0.05; done; exit 5")
    runs.until_logged(run_id, "up")
    again = Sandbox(runs.sandbox.state_dir, replace(runs.sandbox.host, runtimes={}))
    assert [status.state for status in again.find() if status.run_id == run_id] == ["running"]
    pid = again.entry_pid(run_id)
    assert pid is not None
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    (again.work_folder(run_id) / "go").touch()
    status, _ = ended(runs, run_id)
    assert status.exit_code == 5


def test_a_runtime_that_fails_is_not_taken_for_the_job(
    runs: Runs, start: Start, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tier not in RUNTIMES:
        pytest.skip("bubblewrap has no runtime inside it")
    runtime, candidate = runs.sandbox.host.runtimes[tier]
    broken = replace(candidate, path=Path("/bin/false"))
    monkeypatch.setitem(runs.sandbox.host.runtimes, tier, (runtime, broken))
    status, _ = ended(runs, start("exit 0"))
    assert status.cause == "sandbox"


def test_a_tier_that_is_not_there_is_refused(runs: Runs) -> None:
    with pytest.raises(RuntimeError, match="wishful, which this node doesn't have"):
        runs.start("true", tier="wishful")


@pytest.mark.skipif("PERAK_TEST_TCG" not in os.environ, reason="takes a minute: set PERAK_TEST_TCG=1")
def test_a_microvm_runs_a_job_where_the_processor_is_emulated(runs: Runs, monkeypatch: Any) -> None:
    """The whole way but KVM, which CI machines lack."""
    emulated = Microvm(accelerator="tcg")
    candidate = next(iter(emulated.candidates(runs.sandbox.state_dir / "bin")), None)
    if candidate is None:
        pytest.skip(emulated.missing())
    monkeypatch.setitem(runs.sandbox.host.runtimes, "microvm", (emulated, candidate))
    monkeypatch.setattr("sandbox_runs.END_SECONDS", 120.0)
    run_id = runs.start(
        "uname -r; echo $GREETING; echo made >/work/made; cat; exit 7",
        tier="microvm",
        env={"GREETING": "from within"},
        memory_bytes=512 * MIB,
        max_duration_seconds=120.0,
    )
    status, log = ended(runs, run_id)
    assert (status.cause, status.exit_code) == ("exited", 7), log
    release, greeting = log.splitlines()
    assert (release != os.uname().release, greeting) == (True, "from within")
    assert (runs.sandbox.work_folder(run_id) / "made").read_text() == "made\n"


def test_a_machine_that_hangs_is_not_offered(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that is emulated stands for one that hangs: it isn't up within this second either."""
    slow = Microvm(accelerator="tcg")
    monkeypatch.setattr(tiers_probe, "RUNTIMES", {"microvm": slow})
    monkeypatch.setattr(tiers_probe, "FIRST_SECONDS", 1.0)
    monkeypatch.setattr(runs.sandbox, "tiers", dict(runs.sandbox.tiers))
    candidate = next(iter(slow.candidates(runs.sandbox.state_dir / "bin")), None)
    if candidate is None:
        pytest.skip(slow.missing())
    monkeypatch.setitem(runs.sandbox.host.runtimes, "microvm", (slow, candidate))
    tiers_probe.probe_tiers(runs.sandbox, wanted=["microvm"])
    report = runs.sandbox.tiers["microvm"]
    assert not report.available
    assert "reached max_duration of 1 s" in str(report.reason)


def test_a_run_finds_its_proxy_on_its_own_loopback(runs: Runs, start: Start, tier: str) -> None:
    connect = "import socket; socket.create_connection(('127.0.0.1', 3128), timeout=5); print('there')"
    command = f'/usr/bin/python3 -I -S -c "{connect}"'
    status, log = ended(runs, start(command, network_allow=("models.test:443",)))
    assert (status.exit_code, log) == (0, "there\n")


@pytest.fixture
def image() -> Iterator[ImageRoot]:
    """The smallest image: busybox, and a program of its own to start."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed; `apt install busybox-static`")
    root = Path(tempfile.mkdtemp(prefix="perak-image-", dir="/var/tmp"))
    root.chmod(0o755)
    for place in ("proc", "dev", "sys", "tmp", "run", "var/tmp", "work", "job", "etc", "bin", "opt/app"):
        (root / place).mkdir(parents=True)
    for name in ("etc/hosts", "etc/resolv.conf"):
        (root / name).touch()
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (root / "opt/app/word").write_text("of the image\n")
    shows = "cat word; echo $COLOUR; id -u; touch /work/made /tmp/made; touch /opt/app/x || echo closed"
    yield ImageRoot(
        root=str(root), argv=("/bin/sh", "-c", f"busybox --install -s /tmp; PATH=$PATH:/tmp; {shows}"),
        env={"COLOUR": "blue", "PATH": "/bin"}, uid=4321, gid=4321, cwd="/opt/app",
    )  # fmt: skip
    shutil.rmtree(root)


def test_an_image_is_the_jobs_root_in_every_tier(
    runs: Runs, start: Start, tier: str, image: ImageRoot
) -> None:
    uid = RUNTIMES[tier].job_uid if tier in RUNTIMES else 1000
    status, log = ended(runs, start(None, image=image))
    # A user namespace with one user can be anybody; runc and runsc want that one to be root.
    who = "0" if uid == 0 else "4321"
    # What `touch` complains of comes by a pipe of its own in runc, so it may be anywhere.
    said = [line for line in log.splitlines() if not line.startswith("touch")]
    assert (status.exit_code, said) == (0, ["of the image", "blue", who, "closed"]), (status, log)
    status, log = ended(runs, start("pwd; /bin/busybox ls /usr 2>/dev/null || echo no usr", image=image))
    assert log.splitlines()[0] == "/work"
    assert log.splitlines()[-1] == "no usr"


@pytest.fixture
def device() -> Iterator[str]:
    """A device node as a driver's would be, which answers like /dev/null."""
    folder = Path(tempfile.mkdtemp(prefix="perak-dev-", dir="/var/tmp"))
    folder.chmod(0o711)
    (folder / "dev").mkdir()
    node = folder / "dev" / "nvidia0"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    node.chmod(0o666)
    yield str(node)
    shutil.rmtree(folder)


def test_a_run_gets_its_devices_or_the_tier_says_why_not(
    runs: Runs, start: Start, tier: str, device: str
) -> None:
    if reason := tier in RUNTIMES and RUNTIMES[tier].no_devices:
        with pytest.raises(RuntimeError, match=re.escape(reason)):
            start("true", device_nodes=(device,))
        return
    status, log = ended(runs, start("echo into > /dev/nvidia0; ls /dev/nvidia*", device_nodes=(device,)))
    assert (status.exit_code, log) == (0, "/dev/nvidia0\n")


def test_a_terminal_enters_a_container_or_the_tier_says_why_not(runs: Runs, start: Start, tier: str) -> None:
    run_id = start("echo $$ >/work/pid; echo up; sleep 30", env={"GREETING": "hello"})
    runs.until_logged(run_id, "up")
    folder = runs.sandbox.folder(run_id)
    look = "echo $GREETING; pwd; id -u; ls /work; grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status"
    if tier not in ("bubblewrap", *inside.CONTAINERS, inside.ASKED):
        with pytest.raises(inside.CantEnter, match=f"the job runs in {tier}, and terminals are for"):
            inside.plan(folder, argv=["sh"], env={}, size=None)
        return

    said, code = entered(folder, look)
    uid = RUNTIMES[tier].job_uid if tier in RUNTIMES else 1000
    assert (said.split()[:6], code) == (["hello", "/work", str(uid), "pid", "CapEff:", "0" * 16], 0)
    # runsc sets its filter for the job's first process alone, and doesn't name the other.
    assert said.split()[6:] == (
        ["Seccomp:", "0"] if tier == "gvisor" else ["NoNewPrivs:", "1", "Seccomp:", "2"]
    )
    said, code = entered(folder, "test -t 0 && test -t 2 && stty size; exit 5", size=inside.Size(33, 99))
    assert (said.split(), code) == (["33", "99"], 5)
    asked = "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done"
    assert entered(folder, asked, size=inside.Size(24, 80), once_ready=b"\x03")[1] == 9
    said, _ = entered(folder, "echo $$; echo ready; exec sleep 60", once_ready=None)
    gone = f"while [ -d /proc/{said.split()[0]} ]; do sleep 0.05; done; echo gone"
    assert entered(folder, gone) == ("gone\n", 0)


@pytest.fixture
def in_background(probed: tuple[Sandbox, TierReport]) -> Iterator[Runs]:
    """Runs of an agent that a script started in the background: its shell has it ignore these signals."""
    ignored = signal.SIGINT, signal.SIGQUIT, signal.SIGHUP
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    runs = Runs(Sandbox(probed[0].state_dir, probed[0].host))
    yield runs
    runs.poke.close()
    for status in runs.sandbox.find():
        runs.sandbox.clear(status.run_id)
    runs.sandbox.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_ignores_no_signal_though_its_agent_does(in_background: Runs) -> None:
    look = "grep SigIgn /proc/self/status"
    run_id = in_background.start(f"{look}; echo up; sleep 30")
    in_background.until_logged(run_id, "up")
    said, _ = entered(in_background.sandbox.folder(run_id), look)
    for text in (in_background.log(run_id), said):
        ignored = int(text.split()[1], 16)
        assert ignored & GLIBC_OWN == ignored, f"{ignored:x}"


@pytest.fixture
def watched(probed: tuple[Sandbox, TierReport]) -> Iterator[Runs]:
    """Runs where there are no control groups, so that memory is only watched."""
    missing = dict.fromkeys(("memory", "cpu", "pids"), "none")
    runs = Runs(Sandbox(probed[0].state_dir, replace(probed[0].host, groups=None, missing_groups=missing)))
    yield runs
    runs.poke.close()
    for status in runs.sandbox.find():
        runs.sandbox.clear(status.run_id)
    runs.sandbox.close()


def test_memory_that_processes_share_is_counted_once_where_it_is_only_watched(watched: Runs) -> None:
    forks = "x = bytes(range(256)) * (1 << 17); [os.fork() for _ in range(3)]; time.sleep(2)"
    run_id = watched.start(f"/usr/bin/python3 -I -S -c 'import os, time; {forks}'", memory_bytes=128 * MIB)
    status = watched.until(run_id, lambda status: status.state == "exited")
    assert (status.cause, status.exit_code) == ("exited", 0), (status, watched.log(run_id))
    assert 32 * MIB < (status.memory_peak_bytes or 0) < 128 * MIB


def test_what_a_terminal_uses_counts_where_memory_is_only_watched(watched: Runs) -> None:
    run_id = watched.start("echo up; sleep 30", memory_bytes=64 * MIB)
    watched.until_logged(run_id, "up")
    hog = f"/usr/bin/python3 -I -S -c 'x = bytes(range(256)) * {1 << 19}; input()'"
    said, _ = entered(watched.sandbox.folder(run_id), f"echo ready; {hog}", size=inside.Size(24, 80))
    status = watched.until(run_id, lambda status: status.state == "exited")
    assert (status.cause, "of memory" in str(status.detail)) == ("oom", True), (status, said)


def test_a_port_is_reached_or_the_tier_says_why_not(runs: Runs, start: Start, tier: str) -> None:
    serve = "import socket; s = socket.create_server(('127.0.0.1', 9000)); print('up', flush=True)"
    command = f"/usr/bin/python3 -I -S -c \"{serve}; s.accept()[0].sendall(b'hello'); s.accept()\""
    closed, talks = start(command), start(command, network_allow=("models.test:443",))
    for run_id in (closed, talks):
        runs.until_logged(run_id, "up")

    async def reach(run_id: str) -> bytes:
        with await connect_inside(runs.sandbox.folder(run_id), 9000) as link:
            return await asyncio.get_running_loop().sock_recv(link, 16)

    assert asyncio.run(reach(talks)) == b"hello"
    if tier == "gvisor":
        with pytest.raises(inside.CantEnter, match="in gvisor without a network"):
            asyncio.run(reach(closed))
    else:
        assert asyncio.run(reach(closed)) == b"hello"


def entered(
    folder: Path, command: str, *, size: inside.Size | None = None, once_ready: bytes | None = b""
) -> tuple[str, int]:
    """What a shell command says that is put into a run, and its exit code.

    `once_ready`: what is typed when it has said so; None: then it is left alone.
    """

    async def enter() -> tuple[str, int]:
        plan = inside.plan(folder, argv=["sh", "-c", command], env={}, size=size)
        within = await inside.start(plan)
        said = b""
        while piece := await read_some(within.output):
            said += piece
            if b"ready" in said and once_ready is None:
                break
            if b"ready" in said and once_ready and within.input is not None:
                os.write(within.input, once_ready)
        code = await within.exit_code if once_ready is not None else inside.EXIT_LOST
        within.close()
        return said.decode(), code

    return asyncio.run(enter())
