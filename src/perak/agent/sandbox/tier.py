"""Which sandbox this machine can give, and what of it was seen to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from perak.domain.checklist import CheckResult

Tier = Literal["bubblewrap", "bubblewrap-userns", "crun", "runc", "gvisor", "microvm"]


class BrokenOff(Exception):
    """The agent ends: a check of its own was broken off, and has cleared its runs away."""


@dataclass(slots=True)
class Leave:
    """Whether the agent ends, for checks of its own, which then break off.

    Plain and without a lock: a signal's handler sets it, and would wait for ever for a lock that is held.
    """

    now: bool = False

    def check(self) -> None:
        """Raises BrokenOff when the agent ends."""
        if self.now:
            raise BrokenOff


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReport:
    """The tier, whether it may be offered, and each limit either enforced (verified) or not (why).

    The limits are those of `perak.domain.checklist.LIMITS`. `reason` says, when nothing safe works, what is
    wrong and what to install or change.
    """

    tier: Tier
    available: bool
    reason: str | None = None
    enforced: tuple[str, ...] = ()
    unenforced: dict[str, str] = field(default_factory=dict)
    runtime: str = ""
    checks: tuple[CheckResult, ...] = ()
    """The escape checklist in this tier; empty where it could not even be tried."""
    checked_at_ms: int = 0
    """When, in Unix milliseconds; as remembered, where it is."""
