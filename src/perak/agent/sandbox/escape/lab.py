"""Runs that attack: ordinary runs, prepared, started and cleared like any other."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from perak.agent.sandbox.sandbox import PROBE_PREFIX, Sandbox
from perak.agent.sandbox.spec import Mount, RunSpec, RunStatus
from perak.agent.sandbox.tiers import DEFAULT_RUNTIME

MIB = 1 << 20
RUN_SECONDS = 40.0
"""A check takes some 0.5 s, on a busy machine ten times that; one that needs this long has other troubles."""
POLL_SECONDS = 0.01
LOG_BYTES = 256 * 1024
OUTPUT_CHARACTERS = 300
"""Of what a run said that failed."""
OWN_KERNEL = ("gvisor", "microvm")
"""Tiers in which a job doesn't see the node's kernel."""
SYSTEM_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")


class CannotTry(Exception):
    """A run of ours could not be made, or ended early; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """The Python that attacks, and what must be mounted for it."""

    path: str
    mounts: tuple[Mount, ...] = ()


def find_python() -> Python | None:
    """A Python that runs see: the system's in /usr, else one in /opt; None when there is none."""
    for path in SYSTEM_PYTHONS:
        if Path(path).is_file():
            return Python(path=path)
    from perak.agent.environments import interpreters

    for found in interpreters():
        prefix = str(found.prefix)
        outside = not prefix.startswith("/usr")
        return Python(path=str(found.path), mounts=(Mount(source=prefix, target=prefix),) if outside else ())
    return None


@dataclass(slots=True)
class Lab:
    """The runs of one round; `close` clears every one away."""

    sandbox: Sandbox
    tier: str | None
    python: Python
    _runs: list[str] = field(default_factory=list)

    @property
    def own_kernel(self) -> bool:
        """Whether a job in this tier doesn't see the node's kernel."""
        return self.tier in OWN_KERNEL

    def tasks(self, pids_max: int) -> int:
        """What the node lets a run have of processes and threads, with those of its runtime."""
        runtime, _ = self.sandbox.host.runtimes.get(self.tier or "", (DEFAULT_RUNTIME, None))
        return runtime.tasks(pids_max)

    def prepare(
        self, name: str, program: str, *arguments: str, add: tuple[Mount, ...] = (), **limits: Any
    ) -> str:
        """A run of our program (a file, or a package), prepared; its id. `add`: mounts.

        Raises CannotTry, and BrokenOff when the agent ends.
        """
        self.sandbox.leave.check()
        fields: dict[str, Any] = {
            "cpu_milli": 2000,
            "memory_bytes": (256 if self.own_kernel else 96) * MIB,
            "disk_bytes": 8 * MIB,
            "shm_bytes": MIB,
            "pids_max": 48,
            "log_bytes_max": LOG_BYTES,
            "max_duration_seconds": RUN_SECONDS,
            "grace_seconds": 0.2,
        }
        command = shlex.join([self.python.path, "-I", "-S", f"/work/{program}", *arguments])
        try:
            spec = RunSpec(
                run_id=f"{PROBE_PREFIX}-{name}@local",
                lease_id="",
                job_id="",
                epoch=0,
                setup=None,
                command=f"exec {command}",
                mounts=(*self.python.mounts, *add),
                tier=self.tier,
                **(fields | limits),
            )
            self.sandbox.clear(spec.run_id)
            folder = self.sandbox.prepare(spec)
            self._runs.append(spec.run_id)
            _lay_out(program, folder.work)
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise CannotTry(f"a run can't be prepared: {error}") from None
        return spec.run_id

    def start(self, run_id: str, bait: dict[str, Any]) -> None:
        """Start it, with bait.json beside its program. Raises CannotTry."""
        try:
            (self.sandbox.work_folder(run_id) / "bait.json").write_text(json.dumps(bait))
            self.sandbox.start(run_id)
        except (OSError, RuntimeError, LookupError) as error:
            raise CannotTry(f"a run can't be started: {error}") from None

    def status(self, run_id: str) -> RunStatus:
        """How it stands with a run. Raises BrokenOff when the agent ends: nobody waits for it any more."""
        self.sandbox.leave.check()
        return self.sandbox.status(run_id)

    def said(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The JSON lines that the run has written so far, by check."""
        found: dict[str, dict[str, Any]] = {}
        for line in self.sandbox.read_log(run_id, 0, LOG_BYTES).splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                record = json.loads(line)
                found[record["check"]] = record
        return found

    def await_said(self, run_id: str, check: str, *, seconds: float | None = None) -> dict[str, Any]:
        """The line of that check. Raises CannotTry when the run ends without it."""
        deadline = time.monotonic() + (RUN_SECONDS if seconds is None else seconds)
        while True:
            status = self.status(run_id)
            if (said := self.said(run_id).get(check)) is not None:
                return said
            if status.state in ("exited", "lost") or time.monotonic() >= deadline:
                raise CannotTry(self.why(status))
            time.sleep(POLL_SECONDS)

    def await_end(self, run_id: str, *, seconds: float | None = None) -> RunStatus:
        """Its status when it has ended, or as it is after `seconds` (None: RUN_SECONDS and a little)."""
        deadline = time.monotonic() + (RUN_SECONDS + 2 if seconds is None else seconds)
        while True:
            status = self.status(run_id)
            if status.state in ("exited", "lost") or time.monotonic() >= deadline:
                return status
            time.sleep(POLL_SECONDS)

    def why(self, status: RunStatus) -> str:
        """Why a run did not do what it was to."""
        text = self.sandbox.read_log(status.run_id, 0, LOG_BYTES).decode(errors="replace").strip()
        said = [line for line in text.splitlines() if not line.startswith("{")]
        words = status.detail or " ".join(said)[-OUTPUT_CHARACTERS:] or f"it ended as {status.cause}"
        return f"a run doesn't work in the sandbox: {words}"

    def close(self) -> None:
        """Clear every run away."""
        for run_id in self._runs:
            self.sandbox.clear(run_id)


def _lay_out(program: str, work: Path) -> None:
    """Write it into the work folder; a package so that Python runs it, and finds its modules by name."""
    ours = resources.files("perak.agent.sandbox.escape").joinpath(program)
    if ours.is_file():
        (work / program).write_text(ours.read_text())
        return
    package = work.joinpath(program, *f"perak.agent.sandbox.escape.{program}".split("."))
    package.mkdir(parents=True)
    for source in ours.iterdir():
        if source.name.endswith(".py"):
            folder = work / program if source.name == "__main__.py" else package
            (folder / source.name).write_text(source.read_text())
