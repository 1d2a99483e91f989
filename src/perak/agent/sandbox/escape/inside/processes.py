"""Attacks on processes, and by what a process was left."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
from typing import Any

from perak.agent.sandbox.escape.inside.calls import call
from perak.agent.sandbox.escape.inside.look import exists, pids, read

Bait = Any
PROCESSES_SEEN_MAX = 16  # bubblewrap, a shell, we and our children; a machine has more


def host_processes(bait: Bait) -> list[str]:
    found = []
    seen = pids()
    for pid in seen:
        line = read(f"/proc/{pid}/cmdline")
        if bait["canary_mark"].encode() in line:
            found.append(f"a process of the node is visible as {pid}")
        if bait["victim_name"].encode() in line:
            found.append(f"a process of another run is visible as {pid}")
    if len(seen) > PROCESSES_SEEN_MAX:
        found.append(f"{len(seen)} processes are visible")
    return found


def is_own(pid: int, bait: Bait) -> bool:
    """Numbers may be the same on both sides of a process namespace."""
    line = read(f"/proc/{pid}/cmdline")
    return bool(line) and bait["canary_mark"].encode() not in line


def signals(bait: Bait) -> list[str]:
    found = []
    for name, pid, number in (
        ("a process of the node", bait["canary_pid"], signal.SIGUSR1),
        ("the agent", bait["agent_pid"], 0),
    ):
        if is_own(pid, bait) and name != "the agent":
            continue
        try:
            os.kill(pid, 0 if exists(f"/proc/{pid}") is None else number)
        except ProcessLookupError:
            continue
        except PermissionError:
            found.append(f"only its owner keeps {name} ({pid}) from a signal")
            continue
        if name != "the agent" or exists(f"/proc/{pid}") is None:
            found.append(f"{name} ({pid}) takes a signal")
    return found


def ptrace(bait: Bait) -> list[str]:
    """Attach to a process of the node that has our own user, and to the first one here."""
    seize, attach = 0x4206, 16
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(buffer), 8)
    local = ctypes.create_string_buffer(vector)
    found = []
    for pid in (bait["canary_pid"], 1):
        if pid != 1 and is_own(pid, bait):
            continue
        for name, request in (("seize", seize), ("attach", attach)):
            outcome = call("ptrace", request, pid, 0, 0)
            if outcome is not None and "ESRCH" not in outcome:
                found.append(f"ptrace {name} of {pid}: {outcome}")
        outcome = call("process_vm_readv", pid, local, 1, local, 1, 0)
        if outcome is not None and "ESRCH" not in outcome:
            found.append(f"memory of {pid}: {outcome}")
    return found


def namespaces(bait: Bait) -> list[str]:
    found = []
    for kind, outside in bait["namespaces"].items():
        try:
            here = os.readlink("/proc/self/ns/" + kind)
        except OSError:
            continue  # a kernel of its own has none to share
        if here == outside:
            found.append(f"the {kind} namespace is the node's own")
    return found


def descriptors(bait: Bait) -> list[str]:
    """Whatever the agent had open and forgot to close."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + each)
        except OSError:
            continue
        ours = target.startswith(("pipe:", "/dev/null", "/proc/", "/dev/pts"))
        # gVisor's name for the streams that it was given; it hands no other file of the node's on.
        ours = ours or (each in ("0", "1", "2") and target.startswith("host:["))
        if not ours and not target.startswith("/work/"):
            found.append(f"descriptor {each} leads to {target}")
    return found


def terminal(bait: Bait) -> list[str]:
    """With a controlling terminal a job could type into the shell that started it."""
    found: list[str] = []
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return found
    found.append("there is a controlling terminal")
    try:
        fcntl.ioctl(tty, 0x5412, b"#")  # TIOCSTI
        found.append("it takes typed text")
    except OSError:
        pass
    return found
