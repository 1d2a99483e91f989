"""The system calls that no job needs and that most escapes from a sandbox went through.

A list of what is refused, not of what is allowed: jobs are ordinary programs of all kinds. It stands
behind the user namespace without capabilities, which refuses most of these already.
"""

from __future__ import annotations

import errno
import functools
import tempfile
from pathlib import Path
from typing import Any

REFUSED = {
    "keys of other users live in the kernel, not in a namespace": ("add_key", "request_key", "keyctl"),
    "loads code into the kernel": (
        "bpf", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    ),
    "reads or writes other processes": ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp"),
    "watches the machine": ("perf_event_open", "lookup_dcookie", "fanotify_init", "syslog"),
    "large, and not filtered by seccomp itself": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    "holds kernel threads at will, which makes races winnable": ("userfaultfd",),
    "changes what is mounted": (
        "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen",
        "fsconfig", "fsmount", "fspick", "mount_setattr", "quotactl", "quotactl_fd", "swapon", "swapoff",
    ),
    "opens files by inode, past every path": ("open_by_handle_at", "name_to_handle_at"),
    "enters another namespace": ("setns", "unshare"),
    "changes the machine": (
        "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname",
        "setdomainname", "iopl", "ioperm", "acct", "vhangup", "nfsservctl", "uselib",
    ),
}  # fmt: skip
"""Refused with EPERM, by reason."""

CLONE_NEW_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""Mount, cgroup, UTS, IPC, user, PID and network namespace (clone(2))."""

TERMINAL_IOCTLS = (0x5412, 0x541C)
"""TIOCSTI types into the terminal of others, TIOCLINUX too on a console."""

SOCKET_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink: what programs use and what a network namespace confines. All others are
refused: vsock reaches the hypervisor and Bluetooth the air past every namespace, AF_ALG is kernel code."""

SOCKET_FAMILIES_END = 64
"""Linux has 46; room for more."""

ESSENTIAL = ("ptrace", "mount", "unshare", "setns", "clone", "clone3", "ioctl", "socket", "bpf", "keyctl")

INT_MASK = 0xFFFFFFFF
"""ioctl numbers and socket families are 32 bits; the kernel ignores the register's upper half, so do we."""


def write_filter(path: Path) -> str | None:
    """Write the filter as BPF to `path`; returns why there is none when it can't be made."""
    try:
        import pyseccomp
    except ImportError as error:
        return f"pyseccomp is missing: {error}"
    except (OSError, RuntimeError) as error:
        return f"libseccomp is missing (install libseccomp2): {error}"
    try:
        rules = _rules(pyseccomp)
        with path.open("wb") as file:
            rules.export_bpf(file)
    except (OSError, RuntimeError, ValueError) as error:
        return f"libseccomp could not make the filter: {error}"
    path.chmod(0o644)
    return None


@functools.cache
def without_xattrs() -> bytes | None:
    """A filter as BPF that says of a file that is open that its file system has no extended attributes.

    Nothing else is refused. None where libseccomp is missing.
    """
    try:
        import pyseccomp

        rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
        for name in ("fgetxattr", "flistxattr", "fsetxattr", "fremovexattr"):
            rules.add_rule(pyseccomp.ERRNO(errno.EOPNOTSUPP), name)
        with tempfile.TemporaryFile() as file:
            rules.export_bpf(file)
            file.seek(0)
            return file.read()
    except (ImportError, OSError, RuntimeError, ValueError):
        return None


def _rules(seccomp: Any) -> Any:
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    refuse = seccomp.ERRNO(errno.EPERM)
    for names in REFUSED.values():
        for name in names:
            _add(rules, refuse, name)
    for flag in CLONE_NEW_FLAGS:
        _add(rules, refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for request in TERMINAL_IOCTLS:
        _add(rules, refuse, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, INT_MASK, request))
    for family in set(range(SOCKET_FAMILIES_END)) - set(SOCKET_FAMILIES):
        same = seccomp.Arg(0, seccomp.MASKED_EQ, INT_MASK, family)
        _add(rules, seccomp.ERRNO(errno.EAFNOSUPPORT), "socket", same)
    # clone3 hides its flags in memory, where no filter can look; libc falls back to clone on ENOSYS.
    _add(rules, seccomp.ERRNO(errno.ENOSYS), "clone3")
    return rules


def _add(rules: Any, action: Any, name: str, *arguments: Any) -> None:
    """Refuse one call; one that this libseccomp or this machine doesn't know can't be filtered.

    Raises what libseccomp says when it is one of the calls without which the filter is worth little.
    """
    try:
        rules.add_rule(action, name, *arguments)
    except (RuntimeError, ValueError, OSError):
        if name in ESSENTIAL:
            raise


def oci(*, by_trace: bool = False) -> dict[str, Any]:
    """The same rules in the words of an OCI runtime, which leaves out a call that its machine doesn't know.

    `by_trace`: for a runtime that answers every refusal with EPERM; a call that is to be traced, by nobody,
    is answered with ENOSYS (seccomp(2)).
    """
    absence = {"action": "SCMP_ACT_TRACE"} if by_trace else {}
    rules = [_rule([name for names in REFUSED.values() for name in names], errno.EPERM)]
    rules += [_rule(["clone"], errno.EPERM, (0, flag, flag)) for flag in CLONE_NEW_FLAGS]
    rules += [_rule(["ioctl"], errno.EPERM, (1, INT_MASK, request)) for request in TERMINAL_IOCTLS]
    for family in sorted(set(range(SOCKET_FAMILIES_END)) - set(SOCKET_FAMILIES)):
        rules.append(_rule(["socket"], errno.EAFNOSUPPORT, (0, INT_MASK, family)))
    rules.append(_rule(["clone3"], errno.ENOSYS) | absence)
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def _rule(names: list[str], code: int, argument: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Refuse these calls with `code`; with an argument (index, mask, value) only where it is that."""
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": code}
    if argument is not None:
        index, mask, value = argument
        rule["args"] = [{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]
    return rule
