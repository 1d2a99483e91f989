"""What a run asks of the sandbox, and what can be known of it from disk and /proc."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

PIDS_MAX = 512
"""Processes and threads of one run: enough for a data loader per core, far below the machine's own limit."""

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL when a run reaches its max_duration; what Docker and Slurm users expect."""

LOG_BYTES_PER_SECOND = 4 * 1024 * 1024
LOG_BURST_BYTES = 8 * 1024 * 1024
"""How fast a run may write its log in the long run, and at once. Some forty thousand lines a second, which
nobody reads; a run that writes faster waits, so that one run can fill neither disk nor network."""

BYTES_PER_FILE = 32 * 1024
FILES_LEAST = 1024
"""A run may make one file or folder for each 32 KiB of its disk (32,768 for each GiB), and this many in any
case: most data sets and environments have fewer, and a table for more would take disk from everybody."""

SCRIPT_BYTES_MAX = 1024 * 1024
"""A setup or run script; more than this is data and belongs in the work folder."""

_RUN_ID = re.compile(r"[a-z][a-z0-9]{0,15}-[0-9a-z]{1,40}@[a-z][a-z0-9-]{0,30}")

State = Literal["prepared", "running", "exited", "lost"]
Cause = Literal[
    "exited", "signal", "oom", "max_duration", "stopped", "disk_full", "sandbox", "setup", "lost"
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or file of the node that the run sees read-only at `target`."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRoot:
    """An unpacked container image that takes the place of the node's own /usr and /etc.

    `root`: its folder on the node, shared by runs and written by none. It has the places that a sandbox
    mounts on: /proc /dev /sys /tmp /run /var/tmp /work /job, and /etc/hosts and /etc/resolv.conf as plain
    files. `argv` and `cwd`: what a run without a script of its own starts, and where. `uid` and `gid`: whom
    the image wants the run to be, in the run's own user namespace.
    """

    root: str
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    uid: int = 1000
    gid: int = 1000
    cwd: str = "/work"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """A secret that the run is given when it starts, as a variable or a file of /run/secrets."""

    name: str
    kind: Literal["env", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run: its scripts, what it sees and its limits. Stored as run.json in the run's folder.

    `setup` and `command` are shell scripts, run one after the other with ``sh -e`` in the work folder,
    both without a network but for `network_allow`; what `setup` exports does not reach `command`. Without a
    `command`, `image` says what is started. A check of the node's own has no lease, job or epoch.
    """

    run_id: str
    lease_id: str = ""
    job_id: str = ""
    epoch: int = 0
    setup: str | None = None
    command: str | None
    env: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    image: ImageRoot | None = None
    inputs: tuple[Mount, ...] = ()
    """Data at its place below /work: mounted read-only, after the work folder."""
    path_prefix: tuple[str, ...] = ()
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    shm_bytes: int
    pids_max: int = PIDS_MAX
    log_bytes_max: int
    log_bytes_per_second: int = LOG_BYTES_PER_SECOND
    log_burst_bytes: int = LOG_BURST_BYTES
    max_duration_seconds: float
    device_nodes: tuple[str, ...] = ()
    """Paths on the node; the run sees each at /dev/<what follows the last /dev/>."""
    masks: tuple[str, ...] = ()
    """Folders of the kernel's that the run sees empty but for what `mounts` puts there."""
    grace_seconds: float = GRACE_SECONDS
    network_allow: tuple[str, ...] = ()
    """What the run may reach through its proxy, ``host:port`` or ``*.host:port``; empty: it has none."""
    tier: str | None = None
    """One of `Sandbox.tiers`; None: the default one."""
    secrets: tuple[SecretUse, ...] = ()
    """By name: their values are handed to `Sandbox.start` and lie on no disk."""

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        if self.command is None and (self.image is None or not self.image.argv):
            raise ValueError(f"{self.run_id} has neither a script nor an image that names a program to start")
        for script in (self.setup or "", self.command or ""):
            if len(script.encode()) > SCRIPT_BYTES_MAX:
                raise ValueError(f"a script of {self.run_id} is larger than {SCRIPT_BYTES_MAX} bytes")
        if min(self.cpu_milli, self.memory_bytes, self.disk_bytes, self.pids_max) <= 0:
            raise ValueError(f"{self.run_id}: cpu, memory, disk and pids must all be above zero")
        for name, value in (self.env | (self.image.env if self.image else {})).items():
            if not name or "=" in name or "\0" in name + value or not _is_unicode(name + value):
                raise ValueError(f"{self.run_id}: {name[:80]!r} can't be in the environment of a program")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What is known of a run. Times are unix seconds; a missing measurement is None, never zero."""

    run_id: str
    state: State
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    cause: Cause | None = None
    signal: int | None = None
    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    log_bytes: int = 0
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a live run uses right now; None where this machine can't tell."""

    cpu_seconds: float | None
    memory_bytes: int | None


def files_max(disk_bytes: int) -> int:
    """How many files and folders a scratch of that size holds."""
    return max(FILES_LEAST, disk_bytes // BYTES_PER_FILE)


def check_run_id(text: str) -> str:
    """The same text if it is safe as a file name and looks like a run's id; raises ValueError."""
    if not _RUN_ID.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not the id of a run; it looks like run-01jd0abcd@local")
    return text


def spec_to_json(spec: RunSpec) -> str:
    """run.json; it may hold secrets (env), so the file is for the agent's eyes only."""
    return json.dumps(asdict(spec), indent=1)


def spec_from_json(text: str) -> RunSpec:
    """The RunSpec that `spec_to_json` wrote."""
    fields: dict[str, Any] = json.loads(text)
    for name in ("mounts", "inputs"):
        fields[name] = tuple(Mount(**mount) for mount in fields.get(name, ()))
    if image := fields.get("image"):
        fields["image"] = ImageRoot(**image | {"argv": tuple(image["argv"])})
    fields["path_prefix"] = tuple(fields["path_prefix"])
    fields["device_nodes"] = tuple(fields["device_nodes"])
    fields["masks"] = tuple(fields.get("masks", ()))
    fields["secrets"] = tuple(SecretUse(**each) for each in fields.get("secrets", ()))
    fields["network_allow"] = tuple(fields.get("network_allow", ()))
    return RunSpec(**fields)


def _is_unicode(text: str) -> bool:
    """Half a character (a lone surrogate), as JSON can smuggle in, has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
