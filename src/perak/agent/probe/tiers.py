"""The sandbox tiers of this node: found at the start beside the work, offered as soon as they are known."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from perak.agent.sandbox.tier import BrokenOff
from perak.domain.checklist import Checklist, digest
from perak.domain.offer import SandboxTier

if TYPE_CHECKING:
    from perak.agent.sandbox import Sandbox, TierReport
    from perak.agent.sandbox.tier import Tier

log = logging.getLogger(__name__)

LEFT_OUT_CHARACTERS = 500
"""Of a reason on an offer; `perak node doctor` has all of it."""
KNOWN_SECONDS = 120.0
"""Until every tier is known, at most: some seconds for each runtime, more on a machine that is busy."""
END_SECONDS = 10.0
"""For what was broken off to clear its runs away: under a second, unless a process can't be killed."""


def checklist_of(report: TierReport) -> Checklist:
    """The document on one tier; the same for as long as the tier was not tried again."""
    return Checklist(
        at=report.checked_at_ms,
        agent_version=version("perak"),
        kernel=os.uname().release,
        tier=report.tier,
        runtime=report.runtime,
        results=report.checks,
    )


class Tiers:
    """The tiers of one sandbox. `wanted` None: every one that the machine can give."""

    def __init__(self, sandbox: Sandbox, *, wanted: Collection[str] | None = None) -> None:
        self._sandbox = sandbox
        self._wanted = wanted
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._look, name="tiers", daemon=True)

    def begin(self) -> None:
        """Look at the other tiers in the background; the default one is known."""
        self._thread.start()

    def end(self) -> None:
        """Break off looking, where that is still under way; returns when its runs are cleared away."""
        self._sandbox.leave.now = True
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def known(self) -> bool:
        """Whether every tier was looked at."""
        return self._known.is_set()

    def offered(self) -> tuple[SandboxTier, ...]:
        """Those that passed so far, the default one first."""
        return tuple(
            SandboxTier(
                tier=report.tier,
                runtime=report.runtime,
                enforced=report.enforced,
                unenforced=report.unenforced,
                devices=self._no_devices(report) is None,
                checklist=digest(checklist_of(report)) if report.checks else "",
            )
            for report in self._sandbox.tiers.values()
            if report.available
        )

    def left_out(self) -> dict[str, str]:
        """Those whose runtime is here and that did not pass, as an offer names them, and why."""
        return {
            f"sandbox {report.tier}": (report.reason or "it was not tried")[:LEFT_OUT_CHARACTERS]
            for report in self._sandbox.tiers.values()
            if not report.available and report.runtime
        }

    def checklists(self) -> dict[str, Checklist]:
        """How the escape checklist came out in the tiers that passed, by digest."""
        found = (
            checklist_of(each) for each in self._sandbox.tiers.values() if each.available and each.checks
        )
        return {digest(each): each for each in found}

    def require(self, tier: str | None) -> None:
        """Return once it is known that runs may be in that tier; raises LookupError where they may not."""
        if tier is None or tier in {each.tier for each in self.offered()}:
            return
        self._known.wait(KNOWN_SECONDS)
        report = self._sandbox.tiers.get(tier)
        if report is None or not report.available:
            why = report.reason if report is not None else "it is not among those that this node looks for"
            raise LookupError(f"this node doesn't have the sandbox tier {tier}: {why}")

    def report(self, tier: str | None, *, default: TierReport) -> TierReport:
        """What is known of the tier that a run is in; of one still being looked at, its name alone."""
        found = self._sandbox.tiers.get(tier or default.tier)
        if found is not None and found.available:
            return found
        if tier is None:
            return default
        unseen = {"all": "not tried again since the agent's start"}
        return replace(default, tier=cast("Tier", tier), enforced=(), unenforced=unseen)

    def _look(self) -> None:
        from perak.agent.sandbox.tiers.probe import probe_tiers

        try:
            probe_tiers(self._sandbox, wanted=self._wanted)
        except BrokenOff:
            return  # Nothing is known: a run that waits for its tier is left to the next agent.
        except Exception:
            log.exception("not every sandbox tier could be looked at")
        self._known.set()
        for report in list(self._sandbox.tiers.values())[1:]:
            if report.available:
                log.info("sandbox %s, %s, is offered too", report.tier, report.runtime)
            else:
                log.info("sandbox %s is not offered: %s", report.tier, report.reason)

    def _no_devices(self, report: TierReport) -> str | None:
        from perak.agent.sandbox.tiers import RUNTIMES

        runtime = RUNTIMES.get(report.tier)
        return runtime.no_devices if runtime is not None else None
