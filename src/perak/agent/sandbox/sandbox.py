"""Runs on this node: prepared, started under their shims, found again, asked to stop, and cleared away.

All state is in the runs' folders (``state_dir/runs/<run id>``), so an agent that restarts knows all that
the one before it knew:

run.json     what was asked (RunSpec)            log         output, up to its limit
launch.json  what the shim starts                exit.json   how it ended (RunStatus)
shim.json    who the shim is, when it started    scratch/    the job's work folder and /tmp
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from perak.agent.sandbox import cgroup, launch, process, scratch, uids
from perak.agent.sandbox.launch import write_private
from perak.agent.sandbox.shims import ShimServer
from perak.agent.sandbox.spec import (
    RunSpec,
    RunStatus,
    Usage,
    check_run_id,
    spec_from_json,
    spec_to_json,
)
from perak.agent.sandbox.tier import Leave, TierReport
from perak.agent.sandbox.tiers import DEFAULT_RUNTIME, Candidate, Places, Runtime, Start

PROBE_PREFIX = "probe"
"""Runs whose id begins so belong to `probe`, and no one else sees them."""
BAIT_PREFIX = "bait-"
"""Files in the state folder that are laid out for such runs to find."""

LAST_WORDS_CHARACTERS = 300
"""Of a shim that failed, for the run's status."""

POKE_NAME = "poke.sock"
POKE_BUFFER_BYTES = 1 << 20
"""Room for some thousand pokes while the agent is busy; a lost one is harmless, the next status shows all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the probe found usable on this machine, and for the rest why not."""

    binary: Path
    seccomp: Path | None
    seccomp_missing: str | None = None
    groups: cgroup.CgroupHost | None
    missing_groups: dict[str, str] = field(default_factory=dict)
    own_uids: bool
    disk_is_capped: bool
    disk_problem: str | None = None
    runtimes: dict[str, tuple[Runtime, Candidate]] = field(default_factory=dict)
    """The tiers beside the default one whose runtime is there, by name, and the program that was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """A prepared run: `path` is its folder, `work` the job's still empty work folder on the host."""

    path: Path
    work: Path


class Sandbox:
    """The runs under one state folder, of one agent at a time. May be called from several threads.

    Make one with `Sandbox.probe`, which checks first that what it claims holds. `tiers`: what it found on
    each tier that it looked at, by name, the default one first; a run may be in those that are `available`.
    """

    @classmethod
    def probe(cls, state_dir: Path) -> tuple[Sandbox | None, TierReport]:
        """The sandbox of this machine and what it enforces; None and the reason when none is safe.

        Takes one to two seconds the first time after a boot or a change, then under 0.1 s.
        """
        from perak.agent.sandbox.probe import probe  # it builds a Sandbox to attack

        return probe(state_dir)

    def __init__(self, state_dir: Path, host: Host, *, leave: Leave | None = None) -> None:
        """`leave`: breaks off the checks that are made in this sandbox when the agent ends."""
        self.state_dir = state_dir
        self.host = host
        self.leave = leave or Leave()
        self.tiers: dict[str, TierReport] = {}
        self._runs = state_dir / "runs"
        self._shims = ShimServer(state_dir / "bin")

    def prepare(self, spec: RunSpec) -> RunFolder:
        """Make the run's folder, uid, scratch and control group.

        Raises FileExistsError when there is such a run already, and OSError or RuntimeError when this
        node can't hold it (the reason in the message); nothing is left behind then.
        """
        folder = self._runs / spec.run_id
        folder.mkdir(mode=0o711)
        try:
            self._fill(folder, spec)
        except BaseException:
            self.clear(spec.run_id)
            raise
        return RunFolder(path=folder, work=folder / "scratch" / "work")

    def start(self, run_id: str, *, secrets: Mapping[str, bytes] | None = None) -> None:
        """Start the run's shim, in a session of its own; returns once it is there.

        What lies in the work folder now belongs to the job from here on. `secrets`: the values of those that
        the run was prepared for; they go from memory to memory.
        """
        folder = self._folder(run_id)
        plan = launch.read(folder)
        if missing := plan["secrets"].keys() - (secrets or {}).keys():
            raise RuntimeError(f"{run_id} lacks the secret {min(missing)}")
        if (state := self.status(run_id).state) != "prepared":
            raise RuntimeError(f"{run_id} was started already; it is {state}")
        if plan["uid"] is not None:
            scratch.give_to(folder / "scratch" / "work", plan["uid"])
        given = {name: (kind, (secrets or {})[name]) for name, kind in plan["secrets"].items()}
        identity = self._shims.start(folder, secrets=given)
        if identity is not None:
            _write_atomically(folder / "spawn.json", json.dumps(asdict(identity)))

    def find(self) -> list[RunStatus]:
        """The status of every run that has a folder, by id."""
        names = sorted(path.parent.name for path in self._runs.glob("*/run.json"))
        found: list[RunStatus] = []
        for name in names:
            if not name.startswith(PROBE_PREFIX):
                with contextlib.suppress(KeyError, FileNotFoundError):  # released meanwhile
                    found.append(self.status(name))
        return found

    def status(self, run_id: str) -> RunStatus:
        """What is known of the run; raises KeyError when there is no such run."""
        folder = self._folder(run_id)
        if status := _read_exit(folder):
            return status
        shim, started_at = _read_shim(folder)
        log_bytes = _size(folder / "log")
        if shim is None:
            if launch.read(folder)["boot_id"] == process.boot_id():
                return RunStatus(run_id=run_id, state="prepared")
            return _lost(run_id, None, log_bytes, "the node restarted before the run had begun")
        if process.is_alive(shim):
            return RunStatus(run_id=run_id, state="running", started_at=started_at, log_bytes=log_bytes)
        if status := _read_exit(folder):  # it may have ended between the two looks
            return status
        same_boot = shim.boot_id == process.boot_id()
        why = "its shim was killed" if same_boot else "the node restarted during the run"
        if last_words := _tail(folder / "shim.err"):
            why = f"its shim failed: {last_words}"
        return _lost(run_id, started_at, log_bytes, why)

    def load(self, run_id: str) -> RunSpec:
        """What was asked when the run was prepared; raises KeyError when there is no such run."""
        return spec_from_json((self._folder(run_id) / "run.json").read_text())

    def folder(self, run_id: str) -> Path:
        """The run's folder, for what the agent itself keeps of it; raises KeyError when there is none."""
        return self._folder(run_id)

    def work_folder(self, run_id: str) -> Path:
        """The job's work folder on the host. Its content is the job's: follow no link in it."""
        return self._folder(run_id) / "scratch" / "work"

    def read_log(self, run_id: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of the log from `offset`; empty when there are none (yet)."""
        folder = self._folder(run_id)
        try:
            with (folder / "log").open("rb") as file:
                return os.pread(file.fileno(), limit, offset)
        except FileNotFoundError:
            return b""

    def stop(self, run_id: str, *, reason: str, grace_seconds: float) -> None:
        """Ask the run to end: SIGTERM now, SIGKILL after the grace. Returns at once; harmless when ended."""
        folder = self._folder(run_id)
        _write_atomically(folder / "stop.json", json.dumps((reason, grace_seconds)))
        shim, _ = _read_shim(folder)
        if shim is not None and process.is_alive(shim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim.pid, signal.SIGTERM)

    def usage(self, run_id: str) -> Usage:
        """What the run uses now."""
        folder = self._folder(run_id)
        if self.host.groups is not None:
            counters = self.host.groups.group(run_id).counters
            cpu, memory = counters.get("cpu"), counters.get("memory")
            memory_bytes = memory.read() if memory else None
            return Usage(
                cpu_seconds=cpu.read() if cpu else None,
                memory_bytes=None if memory_bytes is None else int(memory_bytes),
            )
        shim, _ = _read_shim(folder)
        if shim is None or not process.is_alive(shim):
            return Usage(cpu_seconds=None, memory_bytes=None)
        below = process.descendants(shim.pid).values()
        ticks = sum(each.cpu_ticks for each in below)
        return Usage(
            cpu_seconds=ticks / process.CLOCK_TICKS_PER_SECOND,
            memory_bytes=sum(each.resident_bytes for each in below),
        )

    def job_pids(self, run_id: str) -> set[int]:
        """The run's processes as the node sees them, without the shim."""
        if self.host.groups is not None:
            return self.host.groups.group(run_id).pids()
        shim, _ = _read_shim(self._folder(run_id))
        return set(process.descendants(shim.pid)) if shim is not None and process.is_alive(shim) else set()

    def entry_pid(self, run_id: str) -> int | None:
        """A process, as the node sees it, whose namespaces are those the job is in; None while there is none.

        In `gvisor` and `microvm` it is the runtime's, because the job itself is not a process of the node's.
        """
        folder = self._folder(run_id)
        shim, _ = _read_shim(folder)
        if shim is None or not process.is_alive(shim):
            return None
        plan, below = launch.read(folder), process.descendants(shim.pid)
        pid = shim.pid
        for _ in range(
            2 + (plan["layers"] + 1 if plan["layers"] else 0)
        ):  # bubblewrap, its first, then within
            children = [each for each, stat in below.items() if stat.parent == pid and stat.state not in "ZX"]
            if not children:
                return None
            pid = min(children, key=lambda each: below[each].start_ticks)
        return pid

    def release(self, run_id: str) -> None:
        """Clear the run away: scratch, control group, uid and folder.

        Raises KeyError when there is no such run, RuntimeError while it runs or has a process that can't be
        killed, OSError when something of it is held; begin again then.
        """
        folder = self._runs / check_run_id(run_id)
        if not folder.exists():
            raise KeyError(run_id)
        if (folder / "run.json").exists() and self.status(run_id).state == "running":
            raise RuntimeError(f"{run_id} still runs: stop it and wait until it has ended")
        self.clear(run_id)

    def clear(self, run_id: str) -> None:
        """Clear the run away, killed if it still runs. May be broken off anywhere and begun again."""
        folder = self._runs / run_id
        (folder / "run.json").unlink(missing_ok=True)
        shim, _ = _read_shim(folder)
        if shim is not None and process.is_alive(shim):
            process.kill(shim)
        if self.host.own_uids and not (folder / "exit.json").exists():
            _kill_owner_of(folder / "scratch" / "work")
        if self.host.groups is not None:
            self.host.groups.group(run_id).remove()
        if self.host.own_uids:
            scratch.unmount(folder)
        scratch.delete(folder)
        if self.host.own_uids:
            uids.give_back(folder)

    def open_poke_socket(self) -> socket.socket:
        """A bound, non-blocking datagram socket on which shims send their run's id whenever there is news.

        One agent at a time: the latest to open it gets the news.
        """
        poke = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        poke.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, POKE_BUFFER_BYTES)
        (self.state_dir / POKE_NAME).unlink(missing_ok=True)
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        folder = os.open(self.state_dir, os.O_PATH | os.O_CLOEXEC)
        try:
            poke.bind(f"/proc/self/fd/{folder}/{POKE_NAME}")
        finally:
            os.close(folder)
        (self.state_dir / POKE_NAME).chmod(0o600)
        return poke

    def clear_leftovers(self) -> None:
        """Clear what agents and shims that were killed have left and nobody else would find."""
        for folder in self._runs.iterdir():
            if folder.name.startswith(PROBE_PREFIX) or not (folder / "run.json").exists():
                self.clear(folder.name)
        for bait in self.state_dir.glob(f"{BAIT_PREFIX}*"):
            bait.unlink(missing_ok=True)
        if self.host.groups is not None:
            for name in self.host.groups.names():
                if not (self._runs / name).exists():
                    self.host.groups.group(name).remove()
        if self.host.own_uids:
            uids.give_back_stale(self._runs)

    def warm_up(self) -> None:
        """Start what forks the shims, so that the first run needn't wait for it."""
        self._shims.launch()

    def close(self) -> None:
        """End what only this agent needs: its socket and what forks the shims.

        Runs go on; a later agent finds them.
        """
        self._shims.close()
        (self.state_dir / POKE_NAME).unlink(missing_ok=True)

    def _fill(self, folder: Path, spec: RunSpec) -> None:
        uid = uids.take(folder) if self.host.own_uids else None
        if self.host.disk_is_capped:
            scratch.mount_image(folder, spec.disk_bytes, templates=self.state_dir / "templates")
        for name in ("work", "tmp"):
            (folder / "scratch" / name).mkdir(parents=True, mode=0o700)
            if uid is not None:
                os.chown(folder / "scratch" / name, uid, uid)
        _write_scripts(folder / "scripts", spec, uid)
        group = None
        if self.host.groups is not None:
            runtime, _ = self.host.runtimes.get(spec.tier or "", (DEFAULT_RUNTIME, None))
            limits = cgroup.Limits(
                cpu_milli=spec.cpu_milli,
                memory_bytes=spec.memory_bytes,
                pids_max=runtime.tasks(spec.pids_max),
            )
            group = self.host.groups.create(spec.run_id, limits)
        start = self._plan_start(folder, spec)
        plan = launch.plan(
            spec,
            start=start,
            run_folder=folder,
            state_folder=self.state_dir,
            binary=self.host.binary,
            seccomp=self.host.seccomp,
            uid=uid,
            group=group,
            disk_is_capped=self.host.disk_is_capped,
            boot_id=process.boot_id(),
        )
        launch.write(folder, plan)
        _write_files(folder / launch.FILES, start.files, uid)
        _write_atomically(folder / "run.json", spec_to_json(spec))

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        bubblewrap = Candidate(path=self.host.binary, version="", origin="")
        runtime, candidate = self.host.runtimes.get(spec.tier or "", (DEFAULT_RUNTIME, bubblewrap))
        if spec.tier not in (None, runtime.tier, next(iter(self.tiers), None)):
            raise RuntimeError(f"{spec.run_id} wants the tier {spec.tier}, which this node doesn't have")
        if spec.device_nodes and runtime.no_devices:
            raise RuntimeError(f"{spec.run_id} can't be in {runtime.tier}: {runtime.no_devices}")
        places = Places(
            scratch=folder / "scratch",
            scripts=folder / "scripts",
            own_etc=self.state_dir / "etc",
            files=folder / launch.FILES,
        )
        return runtime.start(spec, places, candidate)

    def _folder(self, run_id: str) -> Path:
        folder = self._runs / check_run_id(run_id)
        if not (folder / "run.json").exists():
            raise KeyError(run_id)
        return folder


def _write_scripts(folder: Path, spec: RunSpec, uid: int | None) -> None:
    """The scripts as files that only the run's own user can read."""
    folder.mkdir(mode=0o750)
    for name, text in (("setup", spec.setup), ("run", spec.command)):
        if text is None:
            continue
        (folder / name).write_text(text if text.endswith("\n") else f"{text}\n")
        (folder / name).chmod(0o440)
        if uid is not None:
            os.chown(folder / name, 0, uid)
    if uid is not None:
        os.chown(folder, 0, uid)


def _write_files(folder: Path, files: dict[str, str | bytes], uid: int | None) -> None:
    """What the runtime reads, for the run's user only, and a folder in which that user writes."""
    if not files:
        return
    folder.mkdir(mode=0o750)
    (folder / "state").mkdir(mode=0o700)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    if uid is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, uid)
        os.chown(folder / "state", uid, uid)


def _kill_owner_of(work: Path) -> None:
    """Kill what a killed shim has left, and wait until it is gone: the next run may have the same user."""
    try:
        uid = work.stat().st_uid
    except FileNotFoundError:
        return
    deadline = time.monotonic() + process.KILL_SECONDS
    while uids.is_ours(uid) and (pids := process.owned_by(uid)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted(pids)} of the run's user {uid} can't be killed")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(process.KILL_POLL_SECONDS)


def _read_shim(folder: Path) -> tuple[process.ProcessId | None, float | None]:
    """Who the run's shim is and when the run started, as far as it is known."""
    for name in ("shim.json", "spawn.json"):
        with contextlib.suppress(FileNotFoundError):
            record = json.loads((folder / name).read_text())
            identity = process.ProcessId(
                pid=record["pid"], start_ticks=record["start_ticks"], boot_id=record["boot_id"]
            )
            return identity, record.get("started_at")
    return None, None


def _read_exit(folder: Path) -> RunStatus | None:
    try:
        return RunStatus(**json.loads((folder / "exit.json").read_text()))
    except FileNotFoundError:
        return None


def _lost(run_id: str, started_at: float | None, log_bytes: int, why: str) -> RunStatus:
    status = RunStatus(run_id=run_id, state="lost", started_at=started_at, log_bytes=log_bytes)
    return replace(status, cause="lost", detail=why)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-LAST_WORDS_CHARACTERS:].strip()
    except FileNotFoundError:
        return ""


def _write_atomically(path: Path, content: str | bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    write_private(draft, content if isinstance(content, bytes) else content.encode())
    draft.rename(path)
