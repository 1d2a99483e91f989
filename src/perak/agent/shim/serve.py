"""The server: takes runs' folders from the agent, and forks a shim for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from perak.agent.shim import proc, secret_files
from perak.agent.shim.life import Shim

if TYPE_CHECKING:
    from perak.agent.sandbox.launch import Launch

PATH_BYTES = 4096


def serve(descriptor: int) -> None:
    """Fork a shim for each folder that arrives on the socket, and answer with its pid, until it closes."""
    _close_all_but((0, 1, 2, descriptor))
    os.umask(0o077)  # runs' folders can be passed through, what lies in them is ours
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself then takes leave of ended shims
    while True:
        folder, descriptors, _, _ = socket.recv_fds(agent, PATH_BYTES, 1)
        if not folder:
            return
        pid = os.fork()
        if pid == 0:
            agent.close()
            _be_shim(folder.decode(), descriptors)
        for each in descriptors:
            os.close(each)
        agent.send(str(pid).encode())


def _close_all_but(kept: tuple[int, ...]) -> None:
    """Whatever the agent had inherited from who started it must not reach a job."""
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept:
            with contextlib.suppress(OSError):
                os.close(each)


def _be_shim(folder: str, descriptors: list[int]) -> None:
    """In the forked child: leave the agent's session and streams, run what the folder says, once; exits.

    `descriptors`: of the run's secrets, if it has any.
    """
    code = 1
    try:
        os.setsid()
        secrets = secret_files.take(descriptors)
        errors = os.open(os.path.join(folder, "shim.err"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        with open(os.path.join(folder, "launch.json"), "rb") as file:
            plan: Launch = json.load(file)
        started_at = time.time()
        if _claim(folder, started_at):
            Shim(folder, plan, started_at, secrets).run()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(code)


def _claim(folder: str, started_at: float) -> bool:
    """Write shim.json; False when another shim has: its agent may have been killed before it noted that."""
    record = {
        "pid": os.getpid(),
        "start_ticks": int(proc.stat_fields("self")[19]),
        "boot_id": proc.read("/proc/sys/kernel/random/boot_id").strip(),
        "started_at": started_at,
    }
    draft = os.path.join(folder, f".shim.json.{os.getpid()}")
    with open(draft, "w") as file:
        json.dump(record, file)
    try:
        os.link(draft, os.path.join(folder, "shim.json"))
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True
