"""What a tier enforces on this machine, by the escape checklist: only what was refused counts as enforced."""

from __future__ import annotations

from dataclasses import dataclass

from perak.agent.sandbox.escape import attack as escape
from perak.agent.sandbox.sandbox import Sandbox
from perak.domain import checklist
from perak.domain.checklist import CheckResult


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of every check, and what follows from them."""

    results: tuple[CheckResult, ...]

    @property
    def enforced(self) -> tuple[str, ...]:
        """The limits that were seen to hold."""
        return checklist.limits(self.results)[0]

    @property
    def failed(self) -> dict[str, str]:
        """The others, and why."""
        return checklist.limits(self.results)[1]

    @property
    def unsafe(self) -> dict[str, str]:
        """Checks without which no stranger's job may run here, and what came of them."""
        return checklist.unsafe(self.results)


def attack(sandbox: Sandbox, *, tier: str | None = None) -> Findings:
    """Run the whole checklist in one tier (None: the default one). Leaves no run, also when broken off."""
    return Findings(escape(sandbox, tier=tier))
