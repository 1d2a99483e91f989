"""The tiers `crun` and `runc`: a container inside the outer wall, with a user namespace of its own.

What it adds to bubblewrap alone: a second user namespace, so that breaking out of the first gains nothing but
an empty tree, and other people's well-attacked code for the confinement itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perak.agent.sandbox import bwrap, seccomp
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier
from perak.agent.sandbox.tiers import wall
from perak.agent.sandbox.tiers.base import Candidate, Places, Runtime, Start, job_command, stages

OCI_VERSION = "1.0.2"
CONTAINER = "job"
PID_FILE = "state/{stage}.pid"
DEV_BYTES = 65_536
"""The small tmpfs of /dev holds nodes and links; it is read-only for the job."""

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Both lists are those of Docker and Podman."""

NOBODY = 65_534
"""Who asks a runtime for its version: crun as root makes a folder in /run even for that."""

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Crun(Runtime):
    """crun: written in C, starts in some 10 ms."""

    tier: Tier = "crun"
    job_uid = bwrap.JOB_UID
    own_kernel = False
    no_devices: str | None = None

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """The node's own."""
        yield from find("crun")

    def missing(self) -> str:
        """It is in every distribution."""
        return "install crun (Debian: apt install crun)"

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """crun may not make control groups; the run is in its own before crun starts."""
        return container(spec, at, candidate, argv=["--cgroup-manager=disabled"], uid=None)


class Runc(Runtime):
    """runc: the reference, written in Go. Its containers must have a user 0, so that is who the job is."""

    tier: Tier = "runc"
    job_uid = 0
    own_kernel = False
    no_devices: str | None = None

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """The node's own."""
        yield from find("runc")

    def missing(self) -> str:
        """It is in every distribution."""
        return "install runc (Debian: apt install runc)"

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """runc looks for a cgroup file system before it finds that it may do nothing there."""
        return container(spec, at, candidate, argv=[], uid=0, cgroup_view=True)


def find(name: str) -> Iterator[Candidate]:
    """The program of that name that root would find, or at that path, if it can say its version."""
    path = shutil.which(name, path=SEARCH)
    if path is None:
        return
    nobody = NOBODY if os.geteuid() == 0 else None
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=bwrap.VERSION_SECONDS,
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else [],
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0 and done.stdout:
        version = done.stdout.splitlines()[0].replace(" version ", " ").strip()
        yield Candidate(path=Path(path).resolve(), version=version, origin="system")


def container(
    spec: RunSpec,
    at: Places,
    candidate: Candidate,
    *,
    argv: list[str],
    uid: int | None,
    cgroup_view: bool = False,
) -> Start:
    """A container for each stage. `uid`: who the job is inside, None: whom the run asks for."""
    arguments, job = wall.build(
        bwrap.arguments(spec, scratch=at.scratch, own_etc=at.own_etc, scripts=at.scripts),
        at=at,
        runtime=candidate,
    )
    if uid is not None:
        job.uid = job.gid = uid
    arguments += _cgroup_view() if cgroup_view else ["--dir", "/sys/fs/cgroup"]
    names = stages(spec)
    configs = {stage: config(job, job_command(spec, stage)) for stage in names}
    return Start(
        arguments=arguments,
        programs={
            stage: [
                *(wall.PROGRAM, "--root", f"{wall.STATE}/{stage}", *argv, "run"),
                *("--pid-file", f"{wall.FILES}/{PID_FILE.format(stage=stage)}"),
                *("--bundle", f"{wall.FILES}/{stage}", CONTAINER),
            ]
            for stage in names
        },
        files={f"{stage}/config.json": json.dumps(configs[stage]) for stage in names},
        seccomp=False,
        layers=1,
        marks={stage: PID_FILE.format(stage=stage) for stage in names},
    )


def config(job: wall.Job, command: list[str]) -> dict[str, Any]:
    """The OCI runtime's config.json (opencontainers/runtime-spec, config.md)."""
    ids = {"hostID": 0, "size": 1}  # the wall's root, which outside is the run's own user
    return {
        "ociVersion": OCI_VERSION,
        "process": process(job, command),
        "root": {"path": wall.ROOT, "readonly": True},
        "hostname": job.hostname,
        "mounts": [
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs", "nosuid", "mode=0755", f"size={DEV_BYTES}", "ro"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            *(
                _mount(path, "tmpfs", "nosuid", "nodev", "mode=1777", f"size={size}")
                for path, size in job.tmpfs.items()
            ),
            *(_bind(path, source) for path, source in job.devices.items()),
        ],
        "linux": {
            "uidMappings": [{"containerID": job.uid, **ids}],
            "gidMappings": [{"containerID": job.gid, **ids}],
            # The network namespace is the wall's: a second one would only lack what that one was given.
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user", "cgroup")],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
            "seccomp": seccomp.oci(),
        },
    }


def process(job: wall.Job, command: list[str]) -> dict[str, Any]:
    """Who the job is and what it starts: without capabilities, and with no way to gain any."""
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "terminal": False,
        "user": {"uid": job.uid, "gid": job.gid},
        "args": command,
        "env": [f"{name}={value}" for name, value in job.env.items()],
        "cwd": job.cwd,
        "noNewPrivileges": True,
        "capabilities": {each: [] for each in sets},
    }


def _mount(path: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": kind, "options": list(options)}


def _bind(path: str, source: str) -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": source, "options": ["bind", "nosuid"]}


def _cgroup_view() -> list[str]:
    """The node's unified hierarchy to look at, or an empty folder where there is none."""
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (path / "cgroup.procs").exists():
            return ["--ro-bind", os.fspath(path), "/sys/fs/cgroup"]
    return ["--dir", "/sys/fs/cgroup"]
