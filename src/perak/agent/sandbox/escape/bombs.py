"""Jobs that take all they can get, or leave something behind: one for each limit, run inside the sandbox.

``python3 -I -S bombs.py NAME`` in the work folder, beside bait.json. Each writes one JSON line of what it
got; whether that was too much is judged outside. Standard library only, like `inside`.
"""

# ruff: noqa: S103, S108, PERF401 - the paths are the sandbox's own, and open to everybody on purpose

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import sys
import time
from typing import Any

MIB = 1 << 20
Bait = Any
libc = ctypes.CDLL(None, use_errno=True)


def tell(**values: Any) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


def why(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")


def forks(bait: Bait) -> None:
    """As many processes as there are to be had; they wait to be killed."""
    made, refused = 0, None
    for _ in range(bait["processes"] * 3):
        try:
            pid = os.fork()
        except OSError as error:
            refused = why(error)
            break
        if pid == 0:
            signal.pause()
        made += 1
    tell(check="forks", got=made + 1, refused=refused)
    time.sleep(bait["hold_seconds"])


def memory(bait: Bait) -> None:
    """Twice its share, in pages that are really written."""
    held = []
    for each in range(0, bait["memory_bytes"] * 2, 4 * MIB):
        block = mmap.mmap(-1, 4 * MIB)
        for page in range(0, 4 * MIB, 4096):
            block[page] = 1
        held.append(block)
        if each + 4 * MIB == bait["memory_bytes"] // 4 // (4 * MIB) * (4 * MIB):
            tell(check="memory-begun")
    tell(check="memory", got=len(held) * 4 * MIB)


def cpu(bait: Bait) -> None:
    """All of a processor, until so much of its time is used, or so much of the clock's."""
    begun, used = time.monotonic(), time.process_time()
    until = begun + bait["wait_seconds"]
    while time.process_time() - used < bait["cpu_seconds"] and time.monotonic() < until:
        pass
    tell(check="cpu", got=time.process_time() - used, wall=time.monotonic() - begun)


def disk(bait: Bait) -> None:
    """Fill each place that can be written to, and what is not counted there: holes and shared memory."""
    got, refused = 0, None
    block = b"\1" * MIB
    for folder in ("/work", "/tmp"):
        try:
            with open(folder + "/fill", "wb", buffering=0) as file:
                while got < bait["disk_bytes"] * 3:
                    got += file.write(block)
        except OSError as error:
            refused = why(error)
    tell(check="disk", got=got, refused=refused)


def inodes(bait: Bait) -> None:
    """Empty files, without end."""
    got, refused = 0, None
    try:
        while got < bait["inodes"] * 2:
            if got % 4096 == 0:
                folder = f"/tmp/{got}"
                os.mkdir(folder)
            os.close(os.open(f"{folder}/{got}", os.O_CREAT | os.O_WRONLY))
            got += 1
    except OSError as error:
        refused = why(error)
    tell(check="inodes", got=got, refused=refused)


def descriptors(bait: Bait) -> None:
    """Raise the limit, then open as many as there are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    raised = True
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard * 4, hard * 4))
    except (OSError, ValueError):
        raised = False
    got, refused = 3, None
    try:
        while got < bait["open_files"] * 2:
            os.dup(0)
            got += 1
    except OSError as error:
        refused = why(error)
    tell(check="descriptors", got=got, refused=refused, raised=raised)


def log(bait: Bait) -> None:
    """Write so much, as fast as the pipe takes it."""
    left = bait["log_bytes"]
    while left > 0:
        left -= os.write(1, b"x" * 65535 + b"\n")


def shared_memory(bait: Bait) -> None:
    got, refused = 0, None
    try:
        with open("/dev/shm/fill", "wb", buffering=0) as file:
            while got < bait["shm_bytes"] * 4:
                got += file.write(b"\1" * 65536)
    except OSError as error:
        refused = why(error)
    tell(check="shared-memory", got=got, refused=refused)


def stubborn(bait: Bait) -> None:
    """Ignore every signal that can be ignored, in a session of one's own, and breed."""
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.close(1)
                os.close(2)
                while True:
                    time.sleep(1)
    tell(check="stubborn")
    while True:
        time.sleep(1)


def leave(bait: Bait) -> None:
    """Put something wherever the next run could find it. IPC that no file names, too."""
    for folder in bait["places"]:
        try:
            with open("{}/{}".format(folder, bait["left_name"]), "w") as file:
                file.write("left")
            os.chmod("{}/{}".format(folder, bait["left_name"]), 0o666)
        except OSError:
            continue
    libc.shmget(ctypes.c_int(bait["left_key"]), ctypes.c_size_t(4096), 0o1666)
    libc.semget(ctypes.c_int(bait["left_key"]), 1, 0o1666)
    libc.msgget(ctypes.c_int(bait["left_key"]), 0o1666)
    tell(check="leave")


def find(bait: Bait) -> None:
    """Look for what the run before has left."""
    found = []
    for folder in bait["places"]:
        if os.path.lexists("{}/{}".format(folder, bait["left_name"])):
            found.append("{}/{}".format(folder, bait["left_name"]))
    files = [each for folder in ("/tmp", "/dev/shm") for each in os.listdir(folder)]
    found += ["{} was not empty: {}".format("a scratch", each) for each in files]
    key = ctypes.c_int(bait["left_key"])
    shared = []
    if libc.shmget(key, ctypes.c_size_t(0), 0) >= 0:
        shared.append("System V shared memory")
    if libc.semget(key, 0, 0) >= 0:
        shared.append("System V semaphores")
    if libc.msgget(key, 0) >= 0:
        shared.append("a System V queue")
    tell(check="find", files=found, shared=shared)


def victim(bait: Bait) -> None:
    """A run that leaves everything open to everybody, and waits."""
    import socket

    os.umask(0)
    name = bait["victim_name"]
    for folder in ("/work", "/tmp", "/dev/shm"):
        if os.stat(folder).st_uid == os.getuid():
            os.chmod(folder, 0o777)
        with open(f"{folder}/{name}", "w") as file:
            file.write("victim")
    libc.shmget(ctypes.c_int(bait["victim_key"]), ctypes.c_size_t(4096), 0o1666)
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + name)
    abstract.listen()
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    port.listen()
    tell(check="victim", port=port.getsockname()[1])
    while True:
        time.sleep(60)


BOMBS = {
    "forks": forks,
    "memory": memory,
    "cpu": cpu,
    "disk": disk,
    "inodes": inodes,
    "descriptors": descriptors,
    "log": log,
    "shared-memory": shared_memory,
    "stubborn": stubborn,
    "leave": leave,
    "find": find,
    "victim": victim,
}


if __name__ == "__main__":
    with open("/work/bait.json") as file:
        given = json.load(file)
    BOMBS[sys.argv[1]](given)
