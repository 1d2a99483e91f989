"""System calls by their numbers, so that no missing tool or library reads as a refusal."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

# (x86_64, the generic table that aarch64 and riscv64 have); None: this machine has no such call
NUMBERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "mknodat": (259, 33),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "userfaultfd": (323, 282),
    "reboot": (169, 142),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "iopl": (172, None),
    "swapon": (167, 224),
    "acct": (163, 89),
    "syslog": (103, 116),
    "fanotify_init": (300, 262),
}
COLUMNS = {"x86_64": 0, "aarch64": 1, "riscv64": 1}
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
AT_FDCWD = -100
NEW_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}

libc = ctypes.CDLL(None, use_errno=True)


class NotRun(Exception):
    """The attack can't be tried here, and why."""


def call(name: str, *arguments: Any) -> str | None:
    """Make a system call; None when it was refused, otherwise how it went through."""
    machine = os.uname().machine
    if machine not in COLUMNS:
        raise NotRun(f"the numbers of system calls on {machine} are not known here")
    number = NUMBERS[name][COLUMNS[machine]]
    if number is None:
        return None
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    given += [ctypes.c_long(0)] * (6 - len(given))
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *given)
    code = ctypes.get_errno()
    if result >= 0:
        return f"{name} succeeded"
    if code in REFUSALS:
        return None
    return f"{name} reached the kernel ({errno.errorcode.get(code, code)})"
