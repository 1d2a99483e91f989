"""Attacks on files: the node's, the agent's, other jobs'."""

# ruff: noqa: S108 - the paths are the sandbox's own, and a list grown in steps reads better here

from __future__ import annotations

import ctypes
import os
import socket
from typing import Any

from perak.agent.sandbox.escape.inside.calls import libc
from perak.agent.sandbox.escape.inside.look import connects, exists, is_same, pids, read

Bait = Any


def host_files(bait: Bait) -> list[str]:
    """The node's own folders, and a file that everybody there may read."""
    found = []
    for path, identity in bait["host_paths"].items():
        here = exists(path)
        if here is not None and is_same(here, identity):
            found.append(f"{path} is the node's")
    if exists(bait["readable_file"]):
        found.append("{}, a file of the node, is there".format(bait["readable_file"]))
    return found


def password_file(bait: Bait) -> list[str]:
    import hashlib

    found = []
    for path, digest in bait["secret_files"].items():
        text = read(path)
        if text and hashlib.sha256(text).hexdigest() == digest:
            found.append(f"{path} of the node can be read")
        here, identity = exists(path), bait["host_secrets"].get(path)
        if here is not None and is_same(here, identity):
            found.append(f"{path} is the node's")
    return found


def agent_state(bait: Bait) -> list[str]:
    return [f"{path} of the agent is there" for path in bait["agent_paths"] if exists(path)]


def read_only_system(bait: Bait) -> list[str]:
    found = []
    for folder in bait["read_only"]:
        path = os.path.join(folder, bait["nonce"])
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError:
            continue
        os.unlink(path)
        found.append(f"{folder} can be written to")
    return found


def other_jobs(bait: Bait) -> list[str]:
    """What a run beside us has left open to everybody: files, shared memory, sockets."""
    found = []
    name = bait["victim_name"]
    places = [bait["victim_folder"] + "/work", bait["victim_folder"] + "/tmp"]
    places += ["/work", "/tmp", "/var/tmp", "/dev/shm"]
    for pid in pids():
        if pid != os.getpid():
            places += [f"/proc/{pid}/root{each}" for each in ("/work", "/tmp", "/dev/shm")]
            places.append(f"/proc/{pid}/cwd")
    found += [f"its file {place}/{name}" for place in places if exists(f"{place}/{name}")]
    if libc.shmget(ctypes.c_int(bait["victim_key"]), ctypes.c_size_t(0), 0) >= 0:
        found.append("its System V shared memory")
    if connects(socket.AF_UNIX, "\0" + name):
        found.append("its abstract socket")
    if connects(socket.AF_INET, ("127.0.0.1", bait["victim_port"])):
        found.append("its port on the loopback device")
    return found
