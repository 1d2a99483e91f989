"""Starts shims: by one waiting process that forks them, so that no start pays for an interpreter."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import py_compile
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from perak.agent import shim
from perak.agent.sandbox import process

ANSWER_SECONDS = 10.0
"""A fork takes a millisecond, the server's own first start 20; past this the machine is stuck."""

_SOCKET_NUMBER = 3
"""The server's end of the socket, beside its three standard streams."""


class ShimServer:
    """The process that forks shims (`perak.agent.shim`), started when first needed, again if it died.

    It ends when this end of its socket closes; the shims that it forked live on.
    """

    def __init__(self, programs: Path) -> None:
        self._program = programs / program_name()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid: int | None = None

    def start(
        self, folder: Path, *, secrets: Mapping[str, tuple[str, bytes]] | None = None
    ) -> process.ProcessId | None:
        """Fork a shim for that run; its identity, or None when it has ended already.

        `secrets`: kind and value by name, handed over in memory. Raises OSError when the server can't be
        started.
        """
        with self._lock, _in_memory(secrets or {}) as descriptors:
            if self._socket is None:
                self._launch()
            try:
                return self._ask(folder, descriptors)
            except (OSError, ValueError):
                self._end()
                self._launch()
                return self._ask(folder, descriptors)

    def launch(self) -> None:
        """Start the server now, so that the first run needn't wait for it."""
        with self._lock:
            if self._socket is None:
                self._launch()

    def close(self) -> None:
        """End the server."""
        with self._lock:
            self._end()

    def _ask(self, folder: Path, descriptors: list[int]) -> process.ProcessId | None:
        assert self._socket is not None
        socket.send_fds(self._socket, [os.fsencode(folder)], descriptors)
        return process.identify(int(self._socket.recv(32)))

    def _launch(self) -> None:
        """The base interpreter, because a virtual environment's costs a search for its packages."""
        interpreter = getattr(sys, "_base_executable", None) or sys.executable
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(ANSWER_SECONDS)
        with theirs:
            self._pid = os.posix_spawn(
                interpreter,
                [interpreter, "-I", "-S", str(self._program), str(_SOCKET_NUMBER)],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _SOCKET_NUMBER),
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                ],
                setsid=True,  # Ctrl-C in the agent's terminal is not for the runs
                setsigmask=[signal.SIGTERM, signal.SIGCHLD],  # until a shim can take them
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGHUP],
            )
        self._socket = ours

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # it may be stuck; it holds nothing, the shims are not its own
            os.waitpid(self._pid, 0)
            self._pid = None


@contextlib.contextmanager
def _in_memory(secrets: Mapping[str, tuple[str, bytes]]) -> Iterator[list[int]]:
    """An open file without a name, in memory only, that the shim reads; none where there are no secrets."""
    if not secrets:
        yield []
        return
    file = os.memfd_create("secrets", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(
                json.dumps({n: (k, base64.b64encode(v).decode()) for n, (k, v) in secrets.items()}).encode()
            )
        yield [file]
    finally:
        os.close(file)


def program_name() -> str:
    """The compiled shim's folder, whose name changes with its sources and the interpreter."""
    content = b"".join(source.name.encode() + source.read_bytes() for source in _sources())
    return f"shim-{hashlib.sha256(content).hexdigest()[:16]}.{sys.implementation.cache_tag}"


def install(programs: Path) -> None:
    """Compile the shim into `programs`, so that a start doesn't, and needs none of our other files.

    There its modules have the names that they have here, in packages without files of their own.
    """
    target = programs / program_name()
    if target.exists():
        return
    draft = programs / f".{target.name}.{os.getpid()}"
    package = draft.joinpath(*shim.__name__.split("."))
    package.mkdir(parents=True)
    for source in _sources():
        folder = draft if source.stem == "__main__" else package
        py_compile.compile(str(source), cfile=str(folder / f"{source.stem}.pyc"), doraise=True, optimize=0)
    try:
        draft.rename(target)
    except OSError:  # another agent of this folder was quicker
        shutil.rmtree(draft)
        if not target.exists():
            raise


def _sources() -> list[Path]:
    return sorted(Path(shim.__file__).parent.glob("*.py"))
