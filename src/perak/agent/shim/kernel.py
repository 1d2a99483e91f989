"""System calls that Python has no names for."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # linux/sched.h, CLONE_NEWUSER and CLONE_NEWNET
NS_GET_USERNS = 0xB701  # linux/nsfs.h
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """What a process below this one leaves behind becomes its child."""
    _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the parent's thread that forked this process ends."""
    _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def never_dump() -> None:
    """No memory of this process and of those that it makes goes into a file or a crash report.

    One and not zero: with zero the kernel writes no file, and yet hands all of it to a program that
    core_pattern may name (fs/coredump.c). Zero is left where a limit of zero can't be raised.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def enter(namespace: int, kind: int) -> None:
    """Move this process into an open namespace; raises OSError."""
    if _libc.setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
