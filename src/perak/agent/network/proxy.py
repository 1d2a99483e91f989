"""The forward proxy of the jobs on this node.

Each run has a listening socket on its own loopback, made inside the run's network namespace by its shim and
handed to us; behind it is this proxy, outside. It takes CONNECT, and plain HTTP one request a connection;
looks each name up itself, refuses what the job did not name and whatever is not public, and then dials the
very address that it checked: a name that changes its mind (DNS rebinding) or a redirect gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from perak.agent.network.http import (
    DROPPED_HEADERS,
    HEAD_BYTES_MAX,
    METHODS,
    ProxyRequest,
    RefusedRequest,
    answer,
    authority,
    parse_request,
)  # fmt: skip
from perak.agent.network.rules import Rules
from perak.domain.addresses import is_public

SOCKET_NAME = "outlets.sock"
CONNECTIONS_MAX = 128
"""Of one run at once: what a parallel downloader opens, and far below the node's descriptors."""
BACKLOG = 128
CONNECT_SECONDS_MAX = 15.0
IDLE_SECONDS_MAX = 300.0
"""Without a byte either way: model servers think for minutes, dead peers stay silent for ever."""
CHUNK_BYTES = 256 * 1024
BUFFER_BYTES = 4 * HEAD_BYTES_MAX
"""Of a connection each way; the head of a request must fit, and a fast line wants more than that."""
WAIT_SECONDS_MAX = 5.0
"""For our own thread, which never does anything long."""
KEEP_SECONDS = 2.0
"""How often the counts of a run are written down: what an agent that is killed may lose of them."""
RUN_ID_BYTES_MAX = 256

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a name, as the node's own resolver gives them."""


@dataclass(slots=True)
class Traffic:
    """Bytes of a run that went out and came in through its proxy, and how many requests were refused."""

    sent_bytes: int = 0
    received_bytes: int = 0
    refused: int = 0


class Book(Protocol):
    """What the proxy needs to know of runs, and where it writes down what they used."""

    def rules(self, run: str) -> Rules | None:
        """What the run may reach; None: there is no such run."""
        ...

    def read(self, run: str) -> Traffic: ...

    def write(self, run: str, traffic: Traffic) -> None: ...


@dataclass(slots=True)
class Outlet:
    """One run's way out."""

    listener: socket.socket
    rules: Rules
    traffic: Traffic
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS_MAX))
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class NetworkProxy:
    """All runs' proxies, in one thread with a loop of its own, so that no job's traffic delays the agent.

    `only_public` is False in tests alone, whose servers have no public addresses.
    """

    def __init__(self, book: Book, *, resolve: Resolve | None = None, only_public: bool = True) -> None:
        self._book = book
        self._resolve = resolve or _system_resolve
        self._only_public = only_public
        self._outlets: dict[str, Outlet] = {}
        self._shims: set[socket.socket] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network-proxy", daemon=True)
        self._thread.start()

    def listen(self, folder: Path) -> None:
        """Take the runs' sockets from their shims, on `outlets.sock` in `folder`."""
        path = folder / SOCKET_NAME
        path.unlink(missing_ok=True)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        opened = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            door.bind(f"/proc/self/fd/{opened}/{SOCKET_NAME}")
        finally:
            os.close(opened)
        path.chmod(0o600)
        door.listen(BACKLOG)
        self._shims.add(door)
        self._loop.call_soon_threadsafe(self._loop.add_reader, door, self._on_shim, door)

    def open(self, run: str, listener: socket.socket) -> None:
        """Serve `run` on `listener`, ours from now on. A second time: anew."""
        self._do(self._open(run, listener))

    def close(self, run: str) -> Traffic:
        """End the run's connections and its listener; all that it used, also before."""
        self._do(self._close(run))
        return self._book.read(run)

    def stop(self) -> None:
        """End everything here; the runs' sockets live on in their shims, for the next agent."""
        for run in list(self._outlets):
            self._do(self._close(run))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS_MAX)
        for each in self._shims:
            each.close()

    def _do(self, work: Awaitable[None]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(work), self._loop).result(WAIT_SECONDS_MAX)

    def _on_shim(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            shim, _ = door.accept()
            shim.setblocking(False)
            self._shims.add(shim)
            self._loop.add_reader(shim, self._on_word, shim, [])

    def _on_word(self, shim: socket.socket, named: list[str]) -> None:
        """A shim names its run and hands over the socket, once; then it is silent until the stage is over."""
        try:
            said, descriptors, _, _ = socket.recv_fds(shim, RUN_ID_BYTES_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            said, descriptors = b"", []
        if said and descriptors and not named:
            named.append(said.decode(errors="replace"))
            listener = socket.socket(fileno=descriptors[0])
            self._loop.create_task(self._open(named[0], listener))
            return
        self._loop.remove_reader(shim)
        self._shims.discard(shim)
        shim.close()
        for run in named:
            self._loop.create_task(self._close(run))

    async def _open(self, run: str, listener: socket.socket) -> None:
        await self._close(run)
        rules = self._book.rules(run)
        if rules is None:
            listener.close()
            return
        listener.setblocking(False)
        outlet = Outlet(listener, rules, self._book.read(run))
        self._outlets[run] = outlet
        self._keep(outlet, self._accept(outlet))
        self._keep(outlet, self._write_down(run, outlet))

    async def _close(self, run: str) -> None:
        outlet = self._outlets.pop(run, None)
        if outlet is None:
            return
        for task in list(outlet.tasks):
            task.cancel()
        await asyncio.gather(*outlet.tasks, return_exceptions=True)
        outlet.listener.close()
        self._book.write(run, outlet.traffic)

    async def _write_down(self, run: str, outlet: Outlet) -> None:
        written = replace(outlet.traffic)
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if outlet.traffic != written:
                written = replace(outlet.traffic)
                self._book.write(run, written)

    def _keep(self, outlet: Outlet, work: Awaitable[None]) -> None:
        task = self._loop.create_task(_awaited(work))
        outlet.tasks.add(task)
        task.add_done_callback(outlet.tasks.discard)

    async def _accept(self, outlet: Outlet) -> None:
        while True:
            await outlet.slots.acquire()
            try:
                accepted, _ = await self._loop.sock_accept(outlet.listener)
            except OSError:  # no descriptors left for a moment, or the namespace has gone
                outlet.slots.release()
                await asyncio.sleep(1.0)
                continue
            self._keep(outlet, self._serve(outlet, accepted))

    async def _serve(self, outlet: Outlet, accepted: socket.socket) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=accepted, limit=BUFFER_BYTES)
            await self._serve_one(outlet, reader, writer)
        except RefusedRequest as refusal:
            outlet.traffic.refused += 1
            assert writer is not None
            await answer(writer, refusal.status, f"perak: {refusal}")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            if writer is not None:
                await answer(writer, "502 Bad Gateway", f"perak: {error or type(error).__name__}")
        finally:
            outlet.slots.release()
            accepted.close() if writer is None else writer.close()

    async def _serve_one(
        self, outlet: Outlet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_SECONDS_MAX)
        request = parse_request(head[:-4], METHODS)
        if not outlet.rules.permit(request.address):
            raise RefusedRequest(
                "403 Forbidden",
                f"{authority(request.address)} is not in network.allow of this job; add it there",
            )
        remote_reader, remote_writer = await self._dial(request)
        try:
            if request.method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                first = _plain_head(request)
                outlet.traffic.sent_bytes += len(first)
                remote_writer.write(first)
            await _relay((reader, writer), (remote_reader, remote_writer), outlet.traffic)
        finally:
            remote_writer.close()

    async def _dial(self, request: ProxyRequest) -> Ends:
        """A connection to an address that was checked. Raises RefusedRequest; OSError when none answers."""
        host, port = request.address
        try:
            found = await asyncio.wait_for(self._resolve(host, port), CONNECT_SECONDS_MAX)
        except (OSError, UnicodeError):
            raise RefusedRequest("502 Bad Gateway", f"{host} can't be resolved") from None
        allowed = [each for each in found if not self._only_public or (is_public(each) and not is_own(each))]
        if not allowed:
            raise RefusedRequest("403 Forbidden", f"{host} leads to no public address")
        failure: Exception = OSError("no address")
        for each in allowed:
            try:
                return await asyncio.wait_for(
                    asyncio.open_connection(each, port, limit=BUFFER_BYTES), CONNECT_SECONDS_MAX
                )
            except (OSError, TimeoutError) as error:
                failure = error
        raise OSError(f"{authority(request.address)} can't be reached: {failure or 'no answer in time'}")


def is_own(address: str) -> bool:
    """Whether an IP address is this machine's: the kernel would then speak from it to itself."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # nothing is sent: connecting a datagram socket only picks the way
        return bool(probe.getsockname()[0] == address)
    return False


async def _system_resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _relay(job: Ends, remote: Ends, traffic: Traffic) -> None:
    """Copy both ways until both have ended, or nothing has moved for IDLE_SECONDS_MAX."""
    loop = asyncio.get_running_loop()
    moved_at = loop.time()

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, out: bool) -> None:
        nonlocal moved_at
        while data := await source.read(CHUNK_BYTES):
            if out:
                traffic.sent_bytes += len(data)
            else:
                traffic.received_bytes += len(data)
            sink.write(data)
            await sink.drain()
            moved_at = loop.time()
        if sink.can_write_eof():
            sink.write_eof()

    copies = [
        loop.create_task(copy(job[0], remote[1], out=True)),
        loop.create_task(copy(remote[0], job[1], out=False)),
    ]
    try:
        while (left := moved_at + IDLE_SECONDS_MAX - loop.time()) > 0:
            done, pending = await asyncio.wait(copies, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            if not pending or any(each.exception() for each in done):
                return
    finally:
        for each in copies:
            each.cancel()
        # A side that was cut off is how connections end; nobody needs to hear of it.
        await asyncio.gather(*copies, return_exceptions=True)


def _plain_head(request: ProxyRequest) -> bytes:
    """The head to send on: one request for one connection, so that none can hide behind it."""
    kept = [f"{name}: {value}" for name, value in request.headers if name.lower() not in DROPPED_HEADERS]
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {authority(request.address)}"]
    return ("\r\n".join([*lines, "Connection: close", *kept]) + "\r\n\r\n").encode("ascii")


async def _awaited(work: Awaitable[None]) -> None:
    await work
