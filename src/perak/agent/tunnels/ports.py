"""A connection to a port of a run, made inside its network namespace.

The job's network stays as it is: the connection goes to the loopback there, and only its socket is out here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path

from perak.agent.sandbox.spec import spec_from_json
from perak.agent.tunnels.inside import ASKED, CantEnter, first_process

CLONE_NEWNET = 0x40000000
CONNECT_SECONDS = 10.0
"""On a loopback a connection is made or refused at once, unless the job's listener is overrun."""
LOOPBACKS = ("127.0.0.1", "::1")

_libc = ctypes.CDLL(None, use_errno=True)


async def connect_inside(run_folder: Path, port: int) -> socket.socket:
    """A connection, not blocking, to a port on which the job listens. Raises CantEnter."""
    target = first_process(run_folder)
    spec = spec_from_json((run_folder / "run.json").read_text())
    if spec.tier == ASKED and not spec.network_allow:
        raise CantEnter(
            f"the job runs in {ASKED} without a network, so that its ports are in there alone; submit it "
            "with a `network` that it may use, or another `isolation`"
        )
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()

    def settle(link: socket.socket | None, error: Exception | None) -> None:
        if made.done():
            if link is not None:
                link.close()
        elif link is not None:
            made.set_result(link)
        else:
            assert error is not None
            made.set_exception(error)

    def work() -> None:
        try:
            link = _connect(target.pid, port)
        except Exception as error:
            result: tuple[socket.socket | None, Exception | None] = (None, error)
        else:
            result = (link, None)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *result)

    # A thread of its own, that ends: only it is moved into the namespace, and it serves nobody else after.
    threading.Thread(target=work, daemon=True).start()
    try:
        return await made
    except OSError as error:
        raise CantEnter(f"nothing in the job answers on port {port}: {error.strerror or error}") from None


def _connect(pid: int, port: int) -> socket.socket:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/net")):
            raise CantEnter("this run shares its network with the node, and its ports are not reached")
        if _libc.setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(namespace)
    failure: OSError | None = None
    for address in LOOPBACKS:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        link: socket.socket | None = None
        try:
            link = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            link.settimeout(CONNECT_SECONDS)
            link.connect((address, port))
        except OSError as error:
            failure = failure or error
            if link is not None:
                link.close()
        else:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)
            return link
    assert failure is not None
    raise failure
