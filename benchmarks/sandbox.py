"""What the sandbox costs: how long a run takes to its first byte in each tier, and its work longer.

Each figure has a function of its own. A tier that this machine can't run has no figure, and stderr says why.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import terminal
from perak.agent.sandbox import RunSpec, Sandbox
from perak.agent.sandbox.tiers import RUNTIMES
from perak.agent.sandbox.tiers.probe import find_runtime, why_not_here

Figure = tuple[str, float, str]

STARTS = 40
STARTS_SLOW = 10
ROUNDS = 30
"""Short ones, inside and outside in turn."""
END_SECONDS = 60.0
MIB = 1 << 20
PULL_MIB = 256
"""Of random bytes, which no packing shrinks, in one layer."""
PULL_TIMES = 3

CPU_WORK = """
import os, time
os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
def work(n):
    total = 0
    for i in range(n):
        total = (total * 31 + i) % 1000003
    return total
least = 1e9
for _ in range(200):
    began = time.process_time()
    work(5_000)
    least = min(least, time.process_time() - began)
print(least)
"""
IO_WORK = """
import os, time
block = os.urandom(1 << 20)
began = time.perf_counter()
for i in range(100):
    with open(f"small-{i}", "wb") as file:
        file.write(block[:4096])
with open("large", "wb") as file:
    for _ in range(16):
        file.write(block)
with open("large", "rb") as file:
    while file.read(1 << 20):
        pass
for i in range(100):
    os.unlink(f"small-{i}")
print(time.perf_counter() - began)
"""
PYTHON = "/usr/bin/python3"
RUNSC = Path(__file__).parent.parent / ".tools" / "runsc"
"""What the tests lay out where the machine's own is too old."""


def measure() -> Iterator[Figure]:
    """Every figure of the group."""
    if RUNSC.exists():
        os.environ.setdefault("PERAK_RUNSC", str(RUNSC))
    with _sandbox() as bench:
        yield from start_ms(bench, "bubblewrap", times=STARTS)
        yield from start_ms(bench, "crun", times=STARTS)
        yield from start_ms(bench, "gvisor", times=STARTS_SLOW)
        yield from overhead_cpu_bound_percent(bench)
        yield from overhead_io_percent(bench)
    yield from pull_mib_per_s()
    yield from terminal.measure()


class Bench:
    """A sandbox and its news."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.poke = sandbox.open_poke_socket()
        self._count = 0

    def prepare(self, command: str, tier: str | None = None) -> str:
        """A run that stands ready; its id."""
        self._count += 1
        spec = RunSpec(
            run_id=f"run-bench{self._count}@local",
            command=command,
            cpu_milli=2000,
            memory_bytes=512 * MIB,
            disk_bytes=256 * MIB,
            shm_bytes=MIB,
            log_bytes_max=MIB,
            max_duration_seconds=END_SECONDS,
            tier=tier,
        )
        self.sandbox.prepare(spec)
        return spec.run_id

    def first_byte_seconds(self, run_id: str) -> float:
        """Start the run; how long until its first byte is there for the agent to read."""
        began = time.perf_counter()
        self.sandbox.start(run_id)
        while not self.sandbox.read_log(run_id, 0, 1):
            self._await_news(run_id)
        return time.perf_counter() - began

    def finish(self, run_id: str) -> str:
        """Wait for the end, clear away; the whole log."""
        while self.sandbox.status(run_id).state != "exited":
            self._await_news(run_id)
        log = self.sandbox.read_log(run_id, 0, MIB).decode(errors="replace")
        self.sandbox.release(run_id)
        return log

    def _await_news(self, run_id: str) -> None:
        if select.select([self.poke], [], [], 0.05)[0]:
            self.poke.recv(256)
        status = self.sandbox.status(run_id)
        if status.state == "lost" or status.cause == "sandbox":
            raise RuntimeError(f"{run_id} failed: {status.detail}")


def start_ms(bench: Bench, tier: str, *, times: int) -> Iterator[Figure]:
    """The median from `Sandbox.start` of a run that stands ready to its first byte."""
    if tier in RUNTIMES:
        runtime = RUNTIMES[tier]
        if reason := why_not_here(bench.sandbox, runtime):
            return _say(f"no start_ms_{tier}: {reason}")
        if find_runtime(bench.sandbox, runtime) is None:
            return _say(f"no start_ms_{tier}: {runtime.missing()}")
    taken = []
    for _ in range(times + 1):
        run_id = bench.prepare("echo up", tier if tier in RUNTIMES else None)
        taken.append(bench.first_byte_seconds(run_id))
        if (said := bench.finish(run_id)) != "up\n":
            return _say(f"no start_ms_{tier}: an ordinary job fails in it ({said.strip()[:200]})")
    yield f"start_ms_{tier}", round(statistics.median(taken[1:]) * 1000, 1), "ms"


def overhead_cpu_bound_percent(bench: Bench) -> Iterator[Figure]:
    """What a loop takes longer inside, in CPU time of its own; below zero is noise.

    Of many short passes in a round the fastest counts; a virtual machine's clock rate wanders by several
    percent from round to round.
    """
    yield "overhead_cpu_bound_percent_bubblewrap", round(_overhead(bench, CPU_WORK) * 100, 2), "%"


def overhead_io_percent(bench: Bench) -> Iterator[Figure]:
    """What writing, reading and removing files takes longer in a sandbox than in such a scratch without one.

    A scratch itself is faster than the node's disk, since it keeps no journal: that is not counted in favour.
    """
    yield "overhead_io_percent_bubblewrap", round(_overhead(bench, IO_WORK) * 100, 1), "%"


def _overhead(bench: Bench, program: str) -> float:
    """What `program` takes longer inside, as a ratio less 1: the median of rounds that take turns.

    Each round compares with the outside just before and just after it, whatever the clock rate is then.
    """
    ratios = []
    before = _outside(bench, program)
    for _ in range(ROUNDS):
        run_id = bench.prepare(f"{PYTHON} -I -c '{program}'")
        bench.sandbox.start(run_id)
        inside = float(bench.finish(run_id))
        after = _outside(bench, program)
        ratios.append(2 * inside / (before + after))
        before = after
    return statistics.median(ratios) - 1


def _outside(bench: Bench, program: str) -> float:
    idle = bench.prepare("never started")
    command = [PYTHON, "-I", "-c", program]
    folder = bench.sandbox.work_folder(idle)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    bench.sandbox.release(idle)
    return float(done.stdout)


@contextlib.contextmanager
def _sandbox() -> Iterator[Bench]:
    if os.geteuid() != 0:
        raise SystemExit("the group sandbox needs root: runs get users of their own")
    state_dir = Path(tempfile.mkdtemp(prefix="perak-bench-sandbox-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    sandbox, report = Sandbox.probe(state_dir)
    if sandbox is None:
        shutil.rmtree(state_dir)
        raise SystemExit(f"no sandbox on this machine: {report.reason}")
    bench = Bench(sandbox)
    try:
        yield bench
    finally:
        bench.poke.close()
        for status in sandbox.find():
            sandbox.clear(status.run_id)
        sandbox.close()
        shutil.rmtree(state_dir)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def pull_mib_per_s() -> Iterator[Figure]:
    """An image's way from a registry on loopback to a root on the disk, verified: the median of three."""
    if not all(map(shutil.which, ("docker-registry", "skopeo"))):
        print("no figure for pulling: docker-registry and skopeo are not installed", file=sys.stderr)
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests"))  # as pytest has it
    from integration.images.image_samples import Layer, build
    from integration.images.image_world import serve_registry

    with tempfile.TemporaryDirectory(prefix="perak-bench-registry-") as folder:
        files = 64
        layer = Layer()
        for number in range(files):
            layer.add(f"part-{number}", os.urandom(PULL_MIB * 2**20 // files))
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        image = build([layer.tar], architecture=architecture)
        with serve_registry(Path(folder)) as registry:
            name = registry.push(image, "large")
            seconds = sorted(_pull_seconds(name, registry.address) for _ in range(PULL_TIMES))
    yield "pull_mib_per_s", round(PULL_MIB / statistics.median(seconds), 1), "MiB/s"


def _pull_seconds(name: str, registry: str) -> float:
    from integration.images.image_world import NodeImages

    state_dir = Path(tempfile.mkdtemp(prefix="perak-bench-images-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    try:
        node = NodeImages(state_dir, private={registry})
        started = time.perf_counter()
        node.ensure(name)
        return time.perf_counter() - started
    finally:
        shutil.rmtree(state_dir)
