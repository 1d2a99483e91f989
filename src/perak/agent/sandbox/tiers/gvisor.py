"""The tier `gvisor`: the job's system calls go to runsc's kernel in user space, not to the node's.

runsc runs as the run's own user inside the outer wall and makes its own user namespace there (--rootless).
The job's processes aren't the node's to signal, so a small shell stands before runsc and passes SIGTERM on.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perak.agent.sandbox import bwrap, seccomp
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier
from perak.agent.sandbox.tiers import oci, wall
from perak.agent.sandbox.tiers.base import Candidate, Places, Runtime, Start, job_command, stages

PLATFORM = "systrap"
"""The default of releases since 2023, which works on any machine; `ptrace` is gone from the newest, and `kvm`
needs a /dev/kvm that the run's user may open."""

PROGRAM_SETTING = "PERAK_RUNSC"
"""The variable of the agent's environment that names the runsc to use, where it isn't the node's own."""

OWN_TASKS = 64
CPU_TASKS = 4
"""Processes and threads of runsc's own: 36 on two processors, and it adds workers for each processor."""

FILTER = "runsc.bpf"
"""For runsc itself. It asks the node for extended attributes of symbolic links in a way that the kernel
answers with EBADF, and hands that on, so that `ls -l` fails; a file system that has none is an answer that
programs know."""

HANDED, PID, SIGNAL = "{handed}", "{pid}", "{signal}"
"""Stand in the orders of `entry` for what is known when they are carried out."""

_FORWARD = """
{runsc} run --pid-file {pid_file} --bundle {bundle} {name} &
child=$!
trap '{runsc} kill --all {name} TERM' TERM
while :; do
    wait $child
    code=$?
    kill -0 $child 2>/dev/null || exit $code
done
"""
"""`wait` also returns when a signal has come; then runsc is still there."""


class Gvisor(Runtime):
    """runsc, rootless."""

    tier: Tier = "gvisor"
    job_uid = 0
    own_kernel = True
    no_devices: str | None = (
        "gVisor hands a GPU on only through its nvproxy, by driver version, and Perak doesn't set that up yet"
    )

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """The one that `PROGRAM_SETTING` names, else the node's own."""
        if named := os.environ.get(PROGRAM_SETTING):
            yield from oci.find(os.fspath(_within_reach(Path(named), programs)))
        else:
            yield from oci.find("runsc")

    def missing(self) -> str:
        """Debian 12's is of 2022."""
        return f"install a runsc of 2023 or later (docs/tiers.md says how), or name it in {PROGRAM_SETTING}"

    def tasks(self, pids_max: int) -> int:
        """Each process of the job is two on the node; its threads take turns in a few."""
        return 2 * pids_max + OWN_TASKS + CPU_TASKS * (os.cpu_count() or 1)

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """A sandbox for each stage; what the job writes goes straight to the node's files."""
        arguments, job = wall.build(
            bwrap.arguments(spec, scratch=at.scratch, own_etc=at.own_etc, scripts=at.scripts),
            at=at,
            runtime=candidate,
        )
        arguments += ["--dir", "/sys/fs/cgroup"]
        job.uid = job.gid = self.job_uid  # the one user that runsc maps, who owns the run's files
        names = stages(spec)
        # Its proxy listens in the wall's network namespace, where there is nothing else to reach.
        network = "host" if spec.network_allow else "none"
        own_filter = seccomp.without_xattrs()
        configs = {stage: json.dumps(_config(job, job_command(spec, stage), network)) for stage in names}
        return Start(
            arguments=arguments,
            programs={stage: ["/bin/sh", "-c", _forward(stage, network)] for stage in names},
            files={f"{stage}/config.json": configs[stage] for stage in names}
            | ({} if own_filter is None else {FILTER: own_filter}),
            seccomp=False,
            wall_filter=FILTER if own_filter is not None else None,
            layers=0,
            stop_by="runtime",
            marks={stage: oci.PID_FILE.format(stage=stage) for stage in names},
        )


def _within_reach(program: Path, programs: Path) -> Path:
    """The program, or a copy of it where its folder is closed to the runs' users."""
    try:
        program = program.resolve(strict=True)
        if all(each.stat().st_mode & stat.S_IXOTH for each in (program, *program.parents)):
            return program
        copy = programs / f"runsc-{bwrap.digest(program)}"
        if not copy.exists():
            draft = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copyfile(program, draft)
            draft.chmod(0o755)
            draft.rename(copy)
    except OSError:  # there is none, which is said where it is looked for
        return program
    return copy


def _forward(stage: str, network: str) -> str:
    runsc = [
        wall.PROGRAM,
        "--root",
        f"{wall.STATE}/{stage}",
        "--rootless",
        "--ignore-cgroups",
        "--oci-seccomp",
        "--overlay2=none",
    ]
    runsc += [f"--network={network}", f"--platform={PLATFORM}"]
    return _FORWARD.format(
        runsc=shlex.join(runsc),
        pid_file=f"{wall.FILES}/{oci.PID_FILE.format(stage=stage)}",
        bundle=f"{wall.FILES}/{stage}",
        name=oci.CONTAINER,
    )


def entry(stage: str, process: dict[str, Any]) -> dict[str, Any]:
    """How one more process is put beside the job, by `perak.agent.tunnels.enter` in the wall.

    The order is handed over as an open file, because arguments are there for all to read. The process has
    the job's user and no capability; the filter of system calls is for the job's first process and its
    children alone, since runsc sets none for others. `kill`: what ends it, given its pid and a signal.
    """
    runsc = [wall.PROGRAM, "--root", f"{wall.STATE}/{stage}", "--rootless"]
    pid_file = f"{wall.STATE}/entered-{secrets.token_hex(8)}.pid"
    order = ["exec", "--process", HANDED, "--internal-pid-file", pid_file, oci.CONTAINER]
    return {
        "uid": 0,  # the wall's: outside it the run's own
        "seccomp": None,
        "cwd": "/",
        "argv": [*runsc, *order],
        "env": {"PATH": oci.SEARCH},
        "handed": json.dumps(process),
        "kill": [*runsc, "kill", "--pid", PID, oci.CONTAINER, SIGNAL],
        "pid_file": pid_file,
    }


def _config(job: wall.Job, command: list[str], network: str) -> dict[str, Any]:
    """runsc takes writable places as mounts of their own, since the root is read-only with all below it."""
    namespaces = ("pid", "mount", "ipc", "uts", *(("network",) if network == "none" else ()))
    places = [
        {"destination": path, "type": "bind", "source": f"{wall.ROOT}{path}", "options": ["rbind", "rw"]}
        for path in job.writable
    ]
    memory = [
        {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", f"size={size}"]}
        for path, size in job.tmpfs.items()
    ]
    return {
        "ociVersion": oci.OCI_VERSION,
        "process": oci.process(job, command),
        "root": {"path": wall.ROOT, "readonly": True},
        "hostname": job.hostname,
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *places, *memory],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "seccomp": seccomp.oci(by_trace=True),
        },
    }
