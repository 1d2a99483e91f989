"""Everything the shim needs to start a run, worked out beforehand so that the shim only carries it out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict

from perak.agent.sandbox import bwrap
from perak.agent.sandbox.cgroup import Group
from perak.agent.sandbox.spec import RunSpec, files_max
from perak.agent.sandbox.tiers import wall
from perak.agent.sandbox.tiers.base import Start, StopBy

PROXY_PORT = 3128
"""Where a run finds its proxy on its own loopback; Squid's port, which people know as a proxy's."""

CONFIG = "config.json"
"""What an OCI runtime is started with, in the folder of each stage."""

FILES = "runtime"
"""The folder of `tiers.base.Places.files` in a run's own."""


class Launch(TypedDict):
    """The shim's plan. `uid` is None where the run keeps the agent's own; a None limit isn't watched.

    `secrets`: "env" or "file" by name; the shim is handed their values. `configs`, by stage: where an OCI
    runtime's config.json is on the node and in bubblewrap's sandbox, empty where bubblewrap itself sets the
    environment. `root`: what the job sees as /, there.
    `seccomp`: the filter that bubblewrap sets; `filter`: the same for whoever enters, who sets it always.
    `programs`, `marks` (here whole paths), `layers` and `stop_by` are those of `tiers.base.Start`.
    """

    run_id: str
    stages: list[str]
    programs: dict[str, list[str]]
    marks: dict[str, str]
    layers: int
    stop_by: StopBy
    bwrap: str
    arguments: list[str]
    seccomp: str | None
    filter: str | None
    uid: int | None
    joins: list[str]
    counters: dict[str, tuple[str, str, float]]
    scratch: str
    memory_bytes: int
    disk_bytes: int
    memory_watch_bytes: int | None
    disk_watch_bytes: int | None
    files_watch: int | None
    pids_rlimit: int | None
    nofile_max: int
    log_bytes_max: int
    log_bytes_per_second: int
    log_burst_bytes: int
    max_duration_seconds: float
    grace_seconds: float
    proxy_port: int | None
    secrets: dict[str, str]
    configs: dict[str, tuple[str, str]]
    root: str
    poke_folder: str
    boot_id: str


def plan(
    spec: RunSpec,
    *,
    start: Start,
    run_folder: Path,
    state_folder: Path,
    binary: Path,
    seccomp: Path | None,
    uid: int | None,
    group: Group | None,
    disk_is_capped: bool,
    boot_id: str,
) -> Launch:
    """The launch of `spec`; without a memory or pids control group the shim keeps those limits itself."""
    scratch = run_folder / "scratch"
    folders = group.folders if group else {}
    counters = group.counters if group else {}
    configs = {
        stage: (str(run_folder / FILES / stage / CONFIG), f"{wall.FILES}/{stage}/{CONFIG}")
        for stage in start.programs
        if f"{stage}/{CONFIG}" in start.files
    }
    if spec.secrets and start.files and not configs:
        raise ValueError(f"{spec.run_id} can't be given secrets in the tier {spec.tier} yet")
    return Launch(
        run_id=spec.run_id,
        stages=list(start.programs),
        programs=start.programs,
        marks={stage: str(run_folder / FILES / name) for stage, name in start.marks.items()},
        layers=start.layers,
        stop_by=start.stop_by,
        bwrap=str(binary),
        arguments=start.arguments,
        seccomp=_filter(start, run_folder, seccomp),
        filter=str(seccomp) if seccomp else None,
        uid=uid,
        joins=group.joins() if group else [],
        counters={name: (each.path, each.key, each.scale) for name, each in counters.items()},
        scratch=str(scratch),
        memory_bytes=spec.memory_bytes,
        disk_bytes=spec.disk_bytes,
        memory_watch_bytes=None if "memory" in folders else spec.memory_bytes,
        disk_watch_bytes=None if disk_is_capped else spec.disk_bytes,
        files_watch=None if disk_is_capped else files_max(spec.disk_bytes),
        pids_rlimit=None if "pids" in folders else spec.pids_max,
        nofile_max=bwrap.NOFILE_MAX,
        log_bytes_max=spec.log_bytes_max,
        log_bytes_per_second=spec.log_bytes_per_second,
        log_burst_bytes=spec.log_burst_bytes,
        max_duration_seconds=spec.max_duration_seconds,
        grace_seconds=spec.grace_seconds,
        proxy_port=PROXY_PORT if spec.network_allow else None,
        secrets={each.name: each.kind for each in spec.secrets},
        configs=configs,
        root=wall.ROOT if start.files else "",
        poke_folder=str(state_folder),
        boot_id=boot_id,
    )


def _filter(start: Start, run_folder: Path, seccomp: Path | None) -> str | None:
    """What bubblewrap sets: the job's own filter, or the one for the runtime in it."""
    if start.seccomp:
        return str(seccomp) if seccomp else None
    return str(run_folder / FILES / start.wall_filter) if start.wall_filter else None


def write(folder: Path, launch: Launch) -> None:
    """Write launch.json; it holds the job's environment, so only the agent may read it."""
    write_private(folder / "launch.json", json.dumps(launch).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read.

    Created and not truncated: ext4 flushes a file that was truncated to nothing as soon as it is closed.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)


def read(folder: Path) -> Launch:
    """The Launch that `write` wrote; raises FileNotFoundError when there is none."""
    launch: Launch = json.loads((folder / "launch.json").read_bytes())
    return launch
