"""Each escape check passes against the real sandbox, and fails against one weakened in just its point."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from weak import (
    DEV_CLOSES,
    ROOT_CLOSES,
    Change,
    WeakSandbox,
    before,
    filter_that_answers_yes,
    sharing,
    without,
)

from perak.agent.sandbox import RunSpec, Sandbox, TierReport, bwrap
from perak.agent.sandbox import process as processes
from perak.agent.sandbox.escape import attack, lab, limits
from perak.agent.sandbox.tiers import RUNTIMES, Start
from perak.agent.sandbox.tiers.probe import probe_tiers
from perak.domain.checklist import CHECKS, CheckResult

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weak:
    """What is wrong with a sandbox. `{open}` in arguments is a folder that all may write to, `{state}` the
    agent's."""

    arguments: Callable[[Path, Path], Change] | None = None
    answers_yes: tuple[str, ...] = ()
    no_filter: bool = False
    no_groups: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    needs: Callable[[], str | None] = lambda: None


def _shared(kind: str, needs: Callable[[], str | None] = lambda: None) -> Weak:
    return Weak(arguments=lambda *_: sharing(kind), needs=needs)


def _bound(source: str, target: str, *, how: str = "--ro-bind", place: list[str] = ROOT_CLOSES) -> Weak:
    return Weak(
        arguments=lambda folder, state: before(
            place, how, source.format(open=folder, state=state), target.format(open=folder, state=state)
        )
    )


def _default_route() -> str | None:
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    has = any(line.split()[1] == "00000000" for line in routes)
    return None if has else "this machine has no default route that a run could share"


CALLS = {
    "setuid": ("setresuid", "setresgid", "setgroups"),
    "ptrace": ("ptrace", "process_vm_readv"),
    "mounts": ("mount", "umount2", "fsopen", "open_tree"),
    "mknod": ("mknodat",),
    "pivot-root": ("chroot", "pivot_root"),
    "user-namespaces": ("unshare", "clone3", "setns"),
    "keyrings": ("keyctl", "add_key", "request_key"),
    "bpf": ("bpf",),
    "perf-events": ("perf_event_open",),
    "io-uring": ("io_uring_setup",),
    "modules": ("init_module", "finit_module", "delete_module", "kexec_load"),
    "file-handles": ("open_by_handle_at",),
    "machine": ("clock_settime", "sethostname", "reboot", "swapon", "acct", "syslog", "fanotify_init"),
    "user-faults": ("userfaultfd",),
}
YES = Weak(answers_yes=("no_new_privs", *(call for calls in CALLS.values() for call in calls)))
YES_TO_SOCKETS = Weak(answers_yes=("socket",))
NO_FILTER = Weak(no_filter=True, arguments=lambda *_: without("--disable-userns"))
PID, IPC, NET = _shared("pid"), _shared("ipc"), _shared("net")
STATE = _bound("{state}", "{state}")
SHM = _bound("{open}", "/dev/shm", how="--bind")

SHOWN = [
    (_bound("/home", "/home"), "host-files", "/home is the node's"),
    (_bound("/etc/shadow", "/etc/shadow"), "password-file", "/etc/shadow is the node's"),
    (STATE, "host-files", "a file of the node"),
    (STATE, "agent-state", "of the agent is there"),
    (STATE, "host-sockets", "a socket with a path"),
    (STATE, "other-jobs", "its file"),
    (Weak(arguments=lambda *_: without(*ROOT_CLOSES)), "read-only-system", "/etc can be written to"),
    (PID, "host-processes", "a process of the node is visible"),
    (PID, "host-processes", "a process of another run is visible"),
    (PID, "signals", "a process of the node was ended"),
    (PID, "namespaces", "the pid namespace"),
    (IPC, "other-jobs", "System V shared memory"),
    (IPC, "shared-memory-leftovers", "a System V queue"),
    (IPC, "namespaces", "the ipc namespace"),
    (NET, "other-jobs", "its abstract socket; its port"),
    (NET, "namespaces", "the net namespace"),
    (NET, "loopback", "127.0.0.1"),
    (NET, "abstract-sockets", "abstract socket"),
    (_shared("net", _default_route), "metadata", "169.254.169.254"),
    (_shared("net", _default_route), "network", "the network device"),
    (_shared("uts"), "namespaces", "the uts namespace"),
    (_shared("cgroup"), "namespaces", "the cgroup namespace"),
    (_bound("{open}/file", "/dev/tty", how="--bind", place=DEV_CLOSES), "terminal", "controlling terminal"),
    (_bound("/dev/null", "/dev/mem", how="--dev-bind", place=DEV_CLOSES), "devices", "/dev/mem is there"),
    (
        _bound("{open}/file", "/proc/sys/kernel/core_pattern", how="--bind"),
        "kernel-parameters",
        "core_pattern",
    ),
    (_bound("{open}", "/sys/fs/cgroup", how="--bind"), "control-groups", "can be written to"),
    (_bound("{open}", "/tmp", how="--bind"), "scratch-leftovers", "/tmp/left"),
    (SHM, "shared-memory-leftovers", "/dev/shm/left"),
    (YES_TO_SOCKETS, "raw-sockets", "a raw IPv4 socket"),
    (YES_TO_SOCKETS, "packet-sockets", "a raw packet socket"),
    (YES_TO_SOCKETS, "odd-sockets", "a socket of the family"),
    (Weak(arguments=lambda *_: before(ROOT_CLOSES, "--cap-add", "CAP_SYS_CHROOT")), "capabilities", "CapEff"),
    (YES, "setuid", "no_new_privs is off"),
    *((YES, check, f"{call} succeeded") for check, calls in CALLS.items() for call in calls),
    (NO_FILTER, "filter", "no filter"),
    (NO_FILTER, "keyrings", "keyctl succeeded"),
    (NO_FILTER, "user-namespaces", "a new user namespace: unshare succeeded"),
    (Weak(limits={"pids_max": 4096}), "fork-bomb", "a run got"),
    (Weak(limits={"memory_bytes": 512 * MIB}), "memory-bomb", "a run got"),
    (Weak(no_groups=True), "memory-bomb", "only watched"),
    (Weak(limits={"shm_bytes": 64 * MIB}), "shared-memory-fill", "a run got"),
    (Weak(limits={"cpu_milli": 64_000}), "cpu-share", "was not slowed down"),
    (Weak(limits={"disk_bytes": 256 * MIB}), "disk-fill", "a run got"),
    (Weak(limits={"disk_bytes": 256 * MIB}), "inode-fill", "a run got"),
    (Weak(plan={"nofile_max": 4_000}), "descriptor-flood", "a run got"),
    (Weak(limits={"log_bytes_per_second": 1 << 30, "log_bytes_max": 64 * MIB}), "log-flood", "a run got"),
    (Weak(limits={"max_duration_seconds": 60.0}), "run-time", "still there"),
]
ELSEWHERE = {"own-user", "descriptors", "refusal-to-die", "device-memory-leftovers"}
"""Checks with tests of their own."""

Findings = Callable[[Weak], dict[str, CheckResult]]


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder of the node that everybody may write to."""
    folder = Path(tempfile.mkdtemp(prefix="perak-open-", dir="/var/tmp"))
    (folder / "file").touch()
    for path in (folder, folder / "file"):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def findings(probed: tuple[Sandbox, TierReport], open_folder: Path) -> Iterator[Findings]:
    """What the checks that it is to show find in a weak sandbox; each is attacked once."""
    state, real = probed[0].state_dir, probed[0].host
    found: dict[int, dict[str, CheckResult]] = {}

    def look(weak: Weak) -> dict[str, CheckResult]:
        if id(weak) in found:
            return found[id(weak)]
        host = real
        if weak.answers_yes:
            host = replace(host, seccomp=filter_that_answers_yes(state / "yes.bpf", *weak.answers_yes))
        if weak.no_filter:
            host = replace(host, seccomp=None)
        if weak.no_groups:
            host = replace(host, groups=None, missing_groups=dict.fromkeys(("memory", "cpu", "pids"), "none"))
        change = weak.arguments(open_folder, state) if weak.arguments else None
        sandbox = WeakSandbox(state, host, arguments=change, limits=weak.limits, plan=weak.plan)
        only = {check for each, check, _ in SHOWN if each is weak}
        try:
            results = attack(sandbox, only=only)
        finally:
            sandbox.close()
        found[id(weak)] = {result.name: result for result in results}
        return found[id(weak)]

    module = sys.modules["perak.agent.sandbox.escape.rounds"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "OPEN_SHOWN_MAX", 100)
        patched.setattr(module, "DETAIL_CHARACTERS", 10_000)
        patched.setattr(limits, "CPU_SECONDS", 0.3)
        patched.setattr(limits, "INODES_TRIED", 1_000)
        patched.setattr(limits, "LATE_SECONDS", 0.5)
        patched.setattr(bwrap, "NOFILE_MAX", 1_000)
        yield look


@pytest.mark.parametrize(("weak", "check", "says"), SHOWN, ids=[f"{each[1]}: {each[2]}" for each in SHOWN])
def test_a_check_fails_where_its_point_is_weakened(
    findings: Findings, weak: Weak, check: str, says: str
) -> None:
    if why := weak.needs():
        pytest.skip(why)
    result = findings(weak)[check]
    assert result.outcome == "failed", result
    assert says in result.detail


def _excused(sandbox: Sandbox) -> set[str]:
    """Limits that this machine can't hold, as its own probe of control groups and mounts says."""
    missing = sandbox.host.missing_groups
    excused = {"device-memory-leftovers"}
    excused |= {"memory-bomb"} if "memory" in missing else set()
    excused |= {"cpu-share"} if "cpu" in missing else set()
    return excused | (set() if sandbox.host.disk_is_capped else {"disk-fill", "inode-fill"})


def test_every_check_holds_against_the_real_sandbox(probed: tuple[Sandbox, TierReport]) -> None:
    results = attack(probed[0])
    assert [each.name for each in results] == [check.name for check in CHECKS]
    excused = _excused(probed[0])
    assert [each for each in results if each.outcome != "passed" and each.name not in excused] == []


@pytest.mark.parametrize("tier", sorted(RUNTIMES))
def test_every_check_holds_in_every_tier_that_is_here(probed: tuple[Sandbox, TierReport], tier: str) -> None:
    sandbox = probed[0]
    probe_tiers(sandbox, wanted={tier}, fresh=True)
    report = sandbox.tiers[tier]
    if not report.checks:
        pytest.skip(f"no {tier} on this machine: {report.reason}")
    assert [each.name for each in report.checks] == [check.name for check in CHECKS]
    excused = _excused(sandbox)
    assert [each for each in report.checks if each.outcome != "passed" and each.name not in excused] == []
    assert report.available


def test_each_check_has_a_weakness_that_shows_it() -> None:
    shown = {check for _, check, _ in SHOWN}
    assert {check.name for check in CHECKS} - shown == ELSEWHERE


def test_a_file_that_the_agent_forgot_to_close_is_found(
    probed: tuple[Sandbox, TierReport], open_folder: Path
) -> None:
    real = probed[0].host.binary
    leaky = probed[0].state_dir / "bin" / "leaky"
    leaky.write_text(f'#!/bin/sh\nexec 9</etc/hostname\nexec {real} "$@"\n')
    leaky.chmod(0o755)
    sandbox = Sandbox(probed[0].state_dir, replace(probed[0].host, binary=leaky))
    try:
        (result,) = attack(sandbox, only={"descriptors"})
    finally:
        sandbox.close()
        leaky.unlink()
    assert result.outcome == "failed"
    assert "/etc/hostname" in result.detail


def _attacked(sandbox: Sandbox, check: str) -> CheckResult:
    try:
        (result,) = attack(sandbox, only={check})
    finally:
        sandbox.close()
    return result


def test_a_run_with_the_agents_own_user_is_found(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the node would show it: bubblewrap is never started as root, so no run can have that user here."""
    monkeypatch.setattr(processes, "real_uid", lambda _: os.getuid())
    (result,) = attack(probed[0], only={"own-user"})
    assert result.outcome == "failed"
    assert "the agent's own user" in result.detail


def test_a_run_that_can_not_be_stopped_is_found(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sandbox, "stop", lambda *_, **__: None)
    monkeypatch.setattr(lab, "RUN_SECONDS", 0.8)
    (result,) = attack(probed[0], only={"refusal-to-die"})
    assert result.outcome == "failed"
    assert "max_duration" in result.detail


class WeakWithANetwork(WeakSandbox):
    """The node's own network for runs that may reach an address, which others don't have."""

    def _plan_start(self, folder: Path, spec: RunSpec) -> Start:
        start = Sandbox._plan_start(self, folder, spec)
        return replace(start, arguments=sharing("net")(start.arguments)) if spec.network_allow else start


def test_a_way_out_that_leads_to_the_node_is_found(probed: tuple[Sandbox, TierReport]) -> None:
    result = _attacked(WeakWithANetwork(probed[0].state_dir, probed[0].host), "loopback")
    assert result.outcome == "failed"
    assert "127.0.0.1" in result.detail


def test_what_can_not_be_tried_has_not_passed(
    probed: tuple[Sandbox, TierReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["perak.agent.sandbox.escape.rounds"], "find_python", lambda: None)
    results = attack(probed[0])
    assert {each.outcome for each in results} == {"not_run"}
    assert all("python3" in each.detail for each in results)
