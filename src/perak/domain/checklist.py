"""The escape checklist: what is tried from inside a sandbox, how it is judged, and the results of one node.

The table is the one source of names; `docs/escape-checklist.md` is drawn from it. A check passed, failed, or
did not run: what could not be tried never counts as refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["must", "limit"]
Outcome = Literal["passed", "failed", "not_run"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the checklist.

    `severity`: without a "must" a tier is not offered; a "limit" that does not hold is a mark on the offer.
    `limit`: which of the sandbox's limits it stands for. `own_kernel_harmless`: the attack is on the kernel,
    so where a tier has a kernel of its own it hits that one. `may_lack`: what a machine may well not have,
    so that there is nothing to try.
    """

    name: str
    attacks: str
    judged: str
    limit: str
    severity: Severity = "must"
    own_kernel_harmless: bool = False
    may_lack: str | None = None


_REFUSED = "each system call must be refused (EPERM, EACCES, ENOSYS); any other answer means it got through"
_FULL = "how much it got, by its own word and seen from outside"

CHECKS = (
    Check(
        name="host-files",
        attacks="The node's own folders (/root, /home, /var, /boot, ...) and a file there that all may read",
        judged="no path is the node's, by device and inode number or by its times; the file is not found",
        limit="filesystem",
    ),
    Check(
        name="password-file",
        attacks="/etc/shadow, /etc/gshadow, sudoers, the node's ssh host keys",
        judged="none is the node's, by device and inode number or by its times, nor reads as the node's",
        limit="filesystem",
    ),
    Check(
        name="agent-state",
        attacks="The agent's state folder: its keys, its journal, other runs",
        judged="none of its paths exists",
        limit="filesystem",
    ),
    Check(
        name="read-only-system",
        attacks="Writing to /, /usr, /etc, /dev, /job, /var, /run, /proc and /sys",
        judged="no file can be made there",
        limit="filesystem",
    ),
    Check(
        name="other-jobs",
        attacks="Files that a run beside it opened to everybody, by path and by /proc/*/root and cwd; its "
        "shared memory, its abstract socket, its port on the loopback device",
        judged="none is found, while that run is seen to live",
        limit="filesystem",
    ),
    Check(
        name="own-user",
        attacks="The user that its processes have on the node",
        judged="seen from outside: neither root nor the agent's own",
        limit="uid",
        may_lack="an agent that is root",
    ),
    Check(
        name="host-processes",
        attacks="Processes of the node and of other runs, in /proc",
        judged="a process that we put there, under the run's own user, is not seen; nor are more than 16",
        limit="processes",
    ),
    Check(
        name="signals",
        attacks="Signals to the agent, and to a process of the node that has the run's own user",
        judged="there is no such process (ESRCH), and that process gets none",
        limit="processes",
    ),
    Check(
        name="ptrace",
        attacks="ptrace and process_vm_readv on that process, and on the sandbox's first",
        judged=_REFUSED,
        limit="processes",
        own_kernel_harmless=True,
    ),
    Check(
        name="namespaces",
        attacks="The node's namespaces: pid, ipc, uts, mount, network, user, cgroup",
        judged="each differs from the agent's",
        limit="processes",
    ),
    Check(
        name="descriptors",
        attacks="Files and sockets that the agent had open",
        judged="a run begins with its three streams and nothing else",
        limit="processes",
    ),
    Check(
        name="terminal",
        attacks="The terminal of whoever started the agent",
        judged="/dev/tty does not open",
        limit="processes",
    ),
    Check(
        name="loopback",
        attacks="Ports that listen on 127.0.0.1 and ::1 of the node",
        judged="one that we opened takes no connection",
        limit="network",
    ),
    Check(
        name="abstract-sockets",
        attacks="Unix sockets without a file, which no file system confines",
        judged="one that we opened takes no connection",
        limit="network",
    ),
    Check(
        name="host-sockets",
        attacks="Unix sockets of the node: the agent's, Docker's, containerd's, D-Bus's, systemd's",
        judged="none takes a connection",
        limit="network",
    ),
    Check(
        name="metadata",
        attacks="The addresses at which clouds hand a machine its credentials",
        judged="there is no route to any of six",
        limit="network",
    ),
    Check(
        name="network",
        attacks="The network at large",
        judged="no device but lo, no route to a public, private or link-local address",
        limit="network",
    ),
    Check(
        name="raw-sockets",
        attacks="Raw IPv4 and IPv6 sockets",
        judged="none opens",
        limit="network",
        own_kernel_harmless=True,
    ),
    Check(
        name="packet-sockets",
        attacks="Packet sockets, which hear and forge what is on the wire",
        judged="none opens",
        limit="network",
        own_kernel_harmless=True,
    ),
    Check(
        name="odd-sockets",
        attacks="Families that no network namespace confines or that are mostly attack surface: vsock, "
        "Bluetooth, AF_ALG, CAN, TIPC, XDP, key, AX.25",
        judged="none opens",
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="capabilities",
        attacks="Capabilities in any of the five sets",
        judged="/proc/self/status shows none",
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="setuid",
        attacks="Becoming root: setresuid, setresgid, setgroups, programs with the setuid bit",
        judged="the calls are refused, and no_new_privs is on",
        limit="privileges",
    ),
    Check(
        name="mounts",
        attacks="mount, remount, umount, fsopen, open_tree",
        judged=_REFUSED,
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="mknod",
        attacks="Nodes of devices: the machine's memory, a disk",
        judged=_REFUSED,
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="pivot-root",
        attacks="chroot and pivot_root",
        judged=_REFUSED,
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="user-namespaces",
        attacks="New namespaces by unshare and clone3, above all of users; others' by setns",
        judged=_REFUSED,
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="devices",
        attacks="Devices in /dev besides null, zero, random, tty and the like",
        judged="there is none but those leased",
        limit="filesystem",
        own_kernel_harmless=True,
    ),
    Check(
        name="kernel-parameters",
        attacks="/proc/sys, /proc/sysrq-trigger, /sys; kernel memory in /proc/kcore and /sys/kernel/debug",
        judged="none of a dozen files opens for writing, none of five for reading",
        limit="filesystem",
        own_kernel_harmless=True,
    ),
    Check(
        name="control-groups",
        attacks="Its own control group, to raise its limits",
        judged="no file of /sys/fs/cgroup can be written to",
        limit="filesystem",
        own_kernel_harmless=True,
    ),
    Check(
        name="keyrings",
        attacks="Kernel keyrings, which know users and no namespaces: keyctl, add_key, request_key",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="bpf", attacks="bpf", judged=_REFUSED, limit="seccomp", own_kernel_harmless=True
    ),
    Check(
        name="perf-events",
        attacks="perf_event_open",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="io-uring",
        attacks="io_uring, whose requests no filter of system calls sees",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="modules",
        attacks="Loading code into the kernel: init_module, finit_module, delete_module, kexec_load",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="file-handles",
        attacks="open_by_handle_at, which opens by inode number, past every path",
        judged=_REFUSED,
        limit="privileges",
        own_kernel_harmless=True,
    ),
    Check(
        name="machine",
        attacks="The clock, the host's name, swap, reboot, ports of the processor, the kernel's log",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="user-faults",
        attacks="userfaultfd, which makes races in the kernel winnable",
        judged=_REFUSED,
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="filter",
        attacks="The filter of system calls",
        judged="/proc/self/status says that it is in force",
        limit="seccomp",
        own_kernel_harmless=True,
    ),
    Check(
        name="scratch-leftovers",
        attacks="Files of the run before it, in the work folder, /tmp and /var/tmp",
        judged="of what a first run leaves a second finds nothing",
        limit="filesystem",
    ),
    Check(
        name="shared-memory-leftovers",
        attacks="What the run before it left in /dev/shm and in System V memory, semaphores and queues",
        judged="of what a first run leaves a second finds nothing",
        limit="processes",
    ),
    Check(
        name="device-memory-leftovers",
        attacks="What the run before it left in a GPU's memory",
        judged="a second run reads none of the pattern that a first filled it with; in the default tier",
        limit="filesystem",
        may_lack="an idle GPU",
    ),
    Check(
        name="refusal-to-die",
        attacks="The end itself: every signal ignored, children in sessions of their own",
        judged="stopped from outside, nothing of it is left when the grace is over",
        limit="run_time",
    ),
    Check(
        name="fork-bomb",
        attacks="All processes that there are",
        judged=_FULL,
        limit="pids",
        severity="limit",
    ),
    Check(
        name="memory-bomb",
        attacks="Twice its memory, in pages really written",
        judged="it is killed for that, and its peak is within the limit",
        limit="memory",
        severity="limit",
    ),
    Check(
        name="shared-memory-fill",
        attacks="Shared memory, filled",
        judged=_FULL,
        limit="memory",
        severity="limit",
    ),
    Check(
        name="cpu-share",
        attacks="More of the processor than it has leased",
        judged="the kernel counts that it held it back",
        limit="cpu",
        severity="limit",
    ),
    Check(
        name="disk-fill",
        attacks="The work folder and /tmp, filled",
        judged=_FULL,
        limit="disk",
        severity="limit",
    ),
    Check(
        name="inode-fill",
        attacks="Empty files without end",
        judged=_FULL,
        limit="inodes",
        severity="limit",
    ),
    Check(
        name="descriptor-flood",
        attacks="Open files without end, after raising the limit on them",
        judged=_FULL,
        limit="open_files",
        severity="limit",
    ),
    Check(
        name="log-flood",
        attacks="Output as fast as the pipe takes it",
        judged="the log grew by its rate, and is within its size",
        limit="log_rate",
        severity="limit",
    ),
    Check(
        name="run-time",
        attacks="Its max_duration, ignoring the signal to end",
        judged="it is killed when the grace is over, and says so",
        limit="run_time",
        severity="limit",
    ),
)  # fmt: skip

BY_NAME = {check.name: check for check in CHECKS}
MUST = tuple(check.name for check in CHECKS if check.severity == "must")
LIMITS = tuple(dict.fromkeys(check.limit for check in CHECKS))
"""What the checks stand for; each is enforced on an offer, or isn't, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How one check came out; `detail` says what was open, or why it did not run."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checklist:
    """What a node says of one of its sandbox tiers, in a document that it signs. `at`: Unix milliseconds."""

    version: int = VERSION
    at: int
    agent_version: str
    kernel: str
    tier: str
    runtime: str
    results: tuple[CheckResult, ...]

    def count(self, outcome: Outcome) -> int:
        """How many checks came out so."""
        return sum(1 for result in self.results if result.outcome == outcome)


def canonical(checklist: Checklist) -> bytes:
    """The one text of the document: JSON with sorted keys and no spaces, in UTF-8."""
    values = asdict(checklist)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(checklist: Checklist) -> str:
    """``sha256:<hex>`` of the document: what offers, leases and receipts name it by."""
    return f"sha256:{hashlib.sha256(canonical(checklist)).hexdigest()}"


def unsafe(results: Iterable[CheckResult], *, complete: bool = True) -> dict[str, str]:
    """Why no stranger's job may run there: every "must" that failed, or that could not be tried.

    `complete` False: checks without a result don't count; another version's table may lack them.
    """
    by_name = {result.name: result for result in results}
    found: dict[str, str] = {}
    for name in MUST:
        result = by_name.get(name)
        if result is None:
            if complete:
                found[name] = "it was not tried"
        elif result.outcome == "failed":
            found[name] = result.detail
        elif result.outcome == "not_run" and BY_NAME[name].may_lack is None:
            found[name] = f"it could not be tried: {result.detail}"
    return found


def is_complete(results: Iterable[CheckResult]) -> bool:
    """Whether every check has an outcome, but for those with nothing to attack on that machine."""
    return all(each.outcome != "not_run" or BY_NAME[each.name].may_lack is not None for each in results)


def limits(results: Iterable[CheckResult]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(limits that were seen to hold, why the others were not)."""
    problems: dict[str, str] = {}
    lacking: dict[str, str] = {}
    held: set[str] = set()
    for result in results:
        check = BY_NAME[result.name]
        if result.outcome == "passed":
            held.add(check.limit)
        elif result.outcome == "not_run" and check.may_lack is not None:
            lacking.setdefault(check.limit, result.detail)
        elif result.outcome == "not_run":
            problems.setdefault(check.limit, f"{result.name} could not be tried: {result.detail}")
        else:
            problems.setdefault(check.limit, f"{result.name}: {result.detail}")
    enforced = tuple(limit for limit in LIMITS if limit in held and limit not in problems)
    return enforced, {
        limit: problems.get(limit) or lacking.get(limit) or "it was not tried"
        for limit in LIMITS
        if limit not in enforced
    }
