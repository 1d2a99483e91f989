"""Which tiers this machine can give beside the default one: each runtime found is attacked like it."""

from __future__ import annotations

from collections.abc import Collection

from perak.agent.sandbox import probe as default_probe
from perak.agent.sandbox.sandbox import Sandbox
from perak.agent.sandbox.tier import Tier, TierReport
from perak.agent.sandbox.tiers import RUNTIMES, Candidate, Runtime

NEEDS_ROOT = "a second user namespace for each run's own user takes an agent that is root"


def probe_tiers(sandbox: Sandbox, *, wanted: Collection[str] | None = None, fresh: bool = False) -> None:
    """Look at every other tier (or those `wanted`), one after the other, and note each in `sandbox.tiers`.

    May go on beside runs: each tier appears as soon as it is known. Takes one to three seconds for each
    runtime that is there; what is remembered of this boot takes none. `fresh`: check again all the same.
    """
    for name, runtime in RUNTIMES.items():
        if wanted is None or name in wanted:
            sandbox.tiers = {**sandbox.tiers, name: _look(sandbox, runtime, fresh=fresh)}


def find_runtime(sandbox: Sandbox, runtime: Runtime) -> Candidate | None:
    """The program to use for that tier, from now on; None where there is none."""
    if runtime.tier not in sandbox.host.runtimes:
        for candidate in runtime.candidates(sandbox.state_dir / "bin"):
            sandbox.host.runtimes[runtime.tier] = (runtime, candidate)
            break
        else:
            return None
    return sandbox.host.runtimes[runtime.tier][1]


def why_not_here(sandbox: Sandbox, runtime: Runtime) -> str | None:
    """What is known of the machine without starting anything that keeps the tier from it."""
    return None if sandbox.host.own_uids else NEEDS_ROOT


def _look(sandbox: Sandbox, runtime: Runtime, *, fresh: bool) -> TierReport:
    name: Tier = runtime.tier
    if reason := why_not_here(sandbox, runtime):
        return TierReport(tier=name, available=False, reason=reason)
    candidate = find_runtime(sandbox, runtime)
    if candidate is None:
        return TierReport(tier=name, available=False, reason=runtime.missing())
    return default_probe.check(sandbox, candidate, name, run_tier=name, fresh=fresh)
