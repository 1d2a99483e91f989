"""Which tiers this machine can give beside the default one: each runtime found is attacked like it."""

from __future__ import annotations

import time
from collections.abc import Collection

from perak.agent.sandbox import probe as default_probe
from perak.agent.sandbox.sandbox import PROBE_PREFIX, Sandbox
from perak.agent.sandbox.scratch import MIB
from perak.agent.sandbox.spec import RunSpec
from perak.agent.sandbox.tier import Tier, TierReport
from perak.agent.sandbox.tiers import RUNTIMES, Candidate, Runtime

FIRST_RUN = f"{PROBE_PREFIX}-first@local"
FIRST_SECONDS = 15.0
"""A first run takes a tenth of a second, in gVisor a whole one; a machine that takes this long is no use."""
FIRST = "set -e; ls -l / >/dev/null; stat /work >/dev/null; echo seen >/work/seen; cat /work/seen"
"""What any job may do. Debian 12's runsc (of 2022) fails at `ls`: it doesn't know a flag of statx that
coreutils 9 sets."""
SAID_CHARACTERS = 300
END_SECONDS = 5.0
"""For the end of a run that was told to end."""
POLL_SECONDS = 0.01

NEEDS_ROOT = "a second user namespace for each run's own user takes an agent that is root"


def probe_tiers(sandbox: Sandbox, *, wanted: Collection[str] | None = None, fresh: bool = False) -> None:
    """Look at every other tier (or those `wanted`), one after the other, and note each in `sandbox.tiers`.

    May go on beside runs: each tier appears as soon as it is known. Takes one to three seconds for each
    runtime that is there; what is remembered of this boot takes none. `fresh`: check again all the same.
    Raises BrokenOff when the agent ends (`sandbox.leave`).
    """
    tried: list[Runtime] = []
    for name, runtime in RUNTIMES.items():
        if wanted is not None and name not in wanted:
            continue
        if (report := _known(sandbox, runtime, fresh=fresh)) is not None:
            _note(sandbox, report)
        else:
            tried.append(runtime)
    for runtime in tried:
        _note(sandbox, _try(sandbox, runtime))


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
    return runtime.why_not() if sandbox.host.own_uids else NEEDS_ROOT


def _note(sandbox: Sandbox, report: TierReport) -> None:
    """Add to what the sandbox knows; always in one order, so that an offer doesn't change without a cause."""
    found = {**sandbox.tiers, report.tier: report}
    order = [name for name in found if name not in RUNTIMES] + [name for name in RUNTIMES if name in found]
    sandbox.tiers = {name: found[name] for name in order}


def _known(sandbox: Sandbox, runtime: Runtime, *, fresh: bool) -> TierReport | None:
    """What can be said without starting anything; None: it has to be tried."""
    name: Tier = runtime.tier
    if reason := why_not_here(sandbox, runtime):
        return TierReport(tier=name, available=False, reason=reason)
    candidate = find_runtime(sandbox, runtime)
    if candidate is None:
        return TierReport(tier=name, available=False, reason=runtime.missing())
    return None if fresh else default_probe.remembered(sandbox, candidate)


def _try(sandbox: Sandbox, runtime: Runtime) -> TierReport:
    _, candidate = sandbox.host.runtimes[runtime.tier]
    if reason := _what_ails(sandbox, runtime.tier):
        return TierReport(tier=runtime.tier, available=False, reason=reason, runtime=candidate.runtime)
    return default_probe.check(sandbox, candidate, runtime.tier, run_tier=runtime.tier, fresh=True)


def _what_ails(sandbox: Sandbox, tier: Tier) -> str | None:
    """Why an ordinary run does not do in this tier; None: it does. Cheaper than a whole checklist in vain."""
    sandbox.leave.check()
    spec = RunSpec(
        run_id=FIRST_RUN,
        command=FIRST,
        cpu_milli=1000,
        memory_bytes=256 * MIB,
        disk_bytes=8 * MIB,
        shm_bytes=MIB,
        log_bytes_max=MIB,
        max_duration_seconds=FIRST_SECONDS,
        grace_seconds=0.1,
        tier=tier,
    )
    sandbox.clear(spec.run_id)
    try:
        sandbox.prepare(spec)
        sandbox.start(spec.run_id)
        deadline = time.monotonic() + FIRST_SECONDS + END_SECONDS
        while (status := sandbox.status(spec.run_id)).state == "running" and time.monotonic() < deadline:
            sandbox.leave.check()
            time.sleep(POLL_SECONDS)
        said = sandbox.read_log(spec.run_id, 0, MIB).decode(errors="replace").strip()
    except (OSError, RuntimeError, ValueError) as error:
        return f"a run can't be prepared: {error}"
    finally:
        sandbox.clear(spec.run_id)
    if (status.cause, status.exit_code, said) == ("exited", 0, "seen"):
        return None
    # The last line is why it gave up; those before it are its log.
    said = (status.detail or said or status.state).strip().rpartition("\n")[2]
    return (
        f"an ordinary job fails in it ({said[:SAID_CHARACTERS]}). It may help to {RUNTIMES[tier].missing()}"
    )
