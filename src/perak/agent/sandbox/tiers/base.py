"""What a tier is: a runtime that is found on the machine, and how a run starts in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from perak.agent.sandbox.bwrap import Candidate
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier

__all__ = ["Candidate", "Places", "Runtime", "Start"]

StopBy = Literal["job", "runtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run's parts are on the node.

    `files` is where `Start.files` are put; inside it `state` belongs to the run's user, for what a runtime
    itself must keep.
    """

    scratch: Path
    scripts: Path
    own_etc: Path
    files: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How the shim starts a run.

    `arguments` are bubblewrap's, `programs` what it starts for each stage. `files` are written into
    `Places.files` beforehand, readable by the run's user. `seccomp`: the filter is bubblewrap's to set; else
    the runtime sets one, and `wall_filter`, one of `files`, is for the runtime itself. `layers`: processes of
    the runtime between bubblewrap's first and the job's first.
    `stop_by`: who is asked to end, the job's processes or the runtime, which then asks the job. `marks`:
    files in `Places.files` that exist as soon as the job itself has been started, by stage; a stage without
    one is started when bubblewrap is.
    """

    arguments: list[str]
    programs: dict[str, list[str]]
    files: dict[str, str | bytes] = field(default_factory=dict)
    seccomp: bool = True
    wall_filter: str | None = None
    layers: int = 0
    stop_by: StopBy = "job"
    marks: dict[str, str] = field(default_factory=dict)


class Runtime(Protocol):
    """One tier.

    `job_uid` is who the job is inside. `own_kernel`: the job doesn't see the node's kernel. `no_devices` says
    why runs with devices of the node can't be in this tier, None where they can.
    """

    tier: Tier
    job_uid: int
    own_kernel: bool
    no_devices: str | None

    def tasks(self, pids_max: int) -> int:
        """Processes and threads that a run takes on the node: `pids_max` of the job's, and the runtime's."""
        return pids_max

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """The programs on this machine that may be this runtime, the preferred one first."""
        ...

    def missing(self) -> str:
        """What to install where there is no candidate."""
        ...

    def why_not(self) -> str | None:
        """What is known of the machine, without starting anything, that keeps the tier from it."""
        return None

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """How `spec` is started; raises ValueError for what this runtime can't pass on."""
        ...


def stages(spec: RunSpec) -> list[str]:
    """The scripts of a run in their order; each is a file of that name in /job."""
    return ["setup", "run"] if spec.setup is not None else ["run"]


def job_command(spec: RunSpec, stage: str) -> list[str]:
    """What a stage starts: its script, or the image's program where the run has no script of its own."""
    if stage == "run" and spec.command is None and spec.image is not None:
        return list(spec.image.argv)
    return ["/bin/sh", "-e", f"/job/{stage}"]
