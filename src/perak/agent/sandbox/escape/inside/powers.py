"""Attacks by what only an administrator, or the kernel itself, should be able to."""

# ruff: noqa: S108, PERF401 - the paths are the sandbox's own, and a list grown in steps reads better here

from __future__ import annotations

import ctypes
import os
import stat
import struct
import time
from functools import partial
from typing import Any

from perak.agent.sandbox.escape.inside.calls import AT_FDCWD, NEW_NAMESPACES, call, libc
from perak.agent.sandbox.escape.inside.child import in_child
from perak.agent.sandbox.escape.inside.look import read, some, status_field

Bait = Any
DEVICES = {
    "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "core", "fd",
    "stdin", "stdout", "stderr", "pts", "shm", "mqueue", "log",
}  # fmt: skip


def capabilities(bait: Bait) -> list[str]:
    found = []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        if int(status_field(name), 16):
            found.append(f"{name} is {status_field(name)}")
    # gVisor does not name it. It is a part of CapInh and CapPrm in any case (capabilities(7)).
    if b"CapAmb:" in read("/proc/self/status") and int(status_field("CapAmb"), 16):
        found.append("CapAmb is " + status_field("CapAmb"))
    return found


def setuid(bait: Bait) -> list[str]:
    """Become root outright, or by one of the programs that everywhere else make one so."""
    found = []
    if libc.prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
        found.append("programs may raise privileges (no_new_privs is off)")
    if os.getuid() != 0:
        # Where nobody in here is root the kernel says EINVAL: only becoming it counts.
        for name, count in (("setresuid", 3), ("setresgid", 3), ("setgroups", 2)):
            outcome = call(name, *[0] * count)
            if outcome is not None and "succeeded" in outcome:
                found.append(outcome)
    return found


def mounts(bait: Bait) -> list[str]:
    none, tmpfs = ctypes.c_char_p(b"none"), ctypes.c_char_p(b"tmpfs")
    bind, remount = 4096, 32
    return some(
        call("mount", none, ctypes.c_char_p(b"/tmp"), tmpfs, 0, 0),
        call("mount", none, ctypes.c_char_p(b"/usr"), 0, bind | remount, 0),
        call("umount2", ctypes.c_char_p(b"/usr"), 0),
        call("fsopen", tmpfs, 0),
        call("open_tree", AT_FDCWD, ctypes.c_char_p(b"/usr"), 1),
    )


def mknod(bait: Bait) -> list[str]:
    found = []
    for name, mode, major, minor in (("memory", stat.S_IFCHR, 1, 1), ("disk", stat.S_IFBLK, 7, 0)):
        path = "/work/{}-{}".format(name, bait["nonce"])
        outcome = call(
            "mknodat", AT_FDCWD, ctypes.c_char_p(path.encode()), mode | 0o600, os.makedev(major, minor)
        )
        if outcome is not None:
            found.append(f"the node of a {name} device: {outcome}")
    return found


def pivot_root(bait: Bait) -> list[str]:
    work = ctypes.c_char_p(b"/work")
    return some(call("chroot", work), call("pivot_root", work, work))


def user_namespaces(bait: Bait) -> list[str]:
    found = []
    for name, flag in NEW_NAMESPACES.items():
        outcome = in_child(partial(call, "unshare", flag))
        if outcome:
            found.append(f"a new {name} namespace: {outcome}")
    arguments = ctypes.create_string_buffer(struct.pack("11Q", NEW_NAMESPACES["user"], *[0] * 10), 88)
    outcome = in_child(partial(call, "clone3", arguments, 88))
    if outcome:
        found.append(f"a new user namespace: {outcome}")
    for kind in ("user", "mnt", "net", "pid"):
        try:
            handle = os.open("/proc/1/ns/" + kind, os.O_RDONLY)
        except OSError:
            continue
        outcome = in_child(partial(call, "setns", handle, 0))
        os.close(handle)
        if outcome:
            found.append(f"the {kind} namespace of another process: {outcome}")
    return found


def devices(bait: Bait) -> list[str]:
    """What lies in /dev besides what every program needs."""
    found = []
    for folder, _, files in os.walk("/dev"):
        if folder.startswith(("/dev/pts", "/dev/shm", "/dev/mqueue")):
            continue
        for each in files:
            path = os.path.join(folder, each)
            mode = os.lstat(path).st_mode
            expected = (folder == "/dev" and each in DEVICES) or path in bait["own_devices"]
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and not expected:
                found.append(f"{path} is there")
    return found


def kernel_parameters(bait: Bait) -> list[str]:
    found = []
    for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/panic", "/proc/sys/vm/drop_caches", "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper",
        "/sys/power/state", "/sys/module/kernel/parameters/panic",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ):  # fmt: skip
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        found.append(f"{path} can be written to")
    for path in (
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/kpagecount",
        "/sys/kernel/debug",
        "/sys/firmware/dmi/tables/DMI",
    ):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        found.append(f"{path} can be read")
    return found


def control_groups(bait: Bait) -> list[str]:
    found = []
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        for each in files:
            if os.access(os.path.join(folder, each), os.W_OK):
                found.append(f"{os.path.join(folder, each)} can be written to")
                return found
        if folder.count("/") > 6:
            break
    return found


def keyrings(bait: Bait) -> list[str]:
    user, name = ctypes.c_char_p(b"user"), ctypes.c_char_p(bait["nonce"].encode())
    return some(
        call("keyctl", 0, -3, 1),  # KEYCTL_GET_KEYRING_ID of the session
        call("add_key", user, name, name, 4, -4),  # to the keyring of the user
        call("request_key", user, name, 0, 0),
    )


def bpf(bait: Bait) -> list[str]:
    attributes = ctypes.create_string_buffer(struct.pack("5I", 2, 4, 4, 1, 0), 128)  # an array of one
    return some(call("bpf", 0, attributes, 128))


def perf_events(bait: Bait) -> list[str]:
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 128, 0), 128)  # the processor's clock
    return some(call("perf_event_open", attributes, 0, -1, -1, 0))


def io_uring(bait: Bait) -> list[str]:
    return some(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


def modules(bait: Bait) -> list[str]:
    text = ctypes.c_char_p(b"")
    return some(
        call("init_module", text, 0, text),
        call("finit_module", 0, text, 0),
        call("delete_module", ctypes.c_char_p(bait["nonce"].encode()), os.O_NONBLOCK),
        call("kexec_load", 0, 0, 0, 0),
    )


def file_handles(bait: Bait) -> list[str]:
    """Opening by inode number goes past every path; of all escapes from containers the oldest."""
    handle = ctypes.create_string_buffer(struct.pack("IiQ", 8, 1, 2), 128)
    here = os.open("/work", os.O_RDONLY)
    return some(call("open_by_handle_at", here, handle, 0))


def machine(bait: Bait) -> list[str]:
    now = ctypes.create_string_buffer(struct.pack("qq", *divmod(time.time_ns(), 10**9)))
    return some(
        call("clock_settime", 0, now),
        call("sethostname", ctypes.c_char_p(b"perak"), 5),
        call("reboot", 0, 0, 0, 0),
        call("swapon", ctypes.c_char_p(b"/work/swap"), 0),
        call("acct", 0),
        call("iopl", 3),
        call("syslog", 3, ctypes.create_string_buffer(16), 16),
        call("fanotify_init", 0, 0),
    )


def user_faults(bait: Bait) -> list[str]:
    return some(call("userfaultfd", 0))


def filter_in_force(bait: Bait) -> list[str]:
    found = []
    if status_field("Seccomp") != "2":
        found.append("no filter of system calls is in force")
    return found
