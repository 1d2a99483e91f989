"""The only way out of an installation: a proxy that knows the package index and nobody else.

It listens on a Unix socket which is bound into the sandbox. HTTPS passes through it sealed, by CONNECT; plain
HTTP is passed on for GET and HEAD. Names are resolved here: inside there is no DNS.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from perak.agent.environments.index import Address, IndexSettings, Upstream
from perak.agent.network.http import (
    DROPPED_HEADERS,
    HEAD_BYTES_MAX,
    READ_ONLY,
    ProxyRequest,
    RefusedRequest,
    answer,
    authority,
    first_of,
    parse_request,
)  # fmt: skip

# uv opens up to 50 connections at once by default; beyond twice that something is wrong.
CONNECTIONS_MAX = 100
CONNECT_SECONDS_MAX = 15.0
# A stalled mirror is given up after this; uv itself waits 30 s for a byte.
IDLE_SECONDS_MAX = 60.0
START_SECONDS_MAX = 5.0
# More of them say nothing new, and the log is the renter's.
REFUSALS_KEPT_MAX = 20
CHUNK_BYTES = 256 * 1024


def check_allowed(request: ProxyRequest, allowed: frozenset[Address]) -> None:
    """Raises `RefusedRequest` unless the request goes to an address of the index."""
    if request.address not in allowed:
        host, port = request.address
        raise RefusedRequest("403 Forbidden", f"{host}:{port} is not the package index")


class IndexProxy:
    """Serves while its `with` block runs, in a thread of its own; `log` hears of every refusal, from that
    thread.
    """

    def __init__(
        self, socket_path: Path, settings: IndexSettings, *, limit_bytes: int, log: Callable[[str], None]
    ) -> None:
        self._socket_path = socket_path
        self._settings = settings
        self._allowed = settings.allowed_addresses()
        self._left_bytes = limit_bytes
        self._log = log
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="index-proxy", daemon=True)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self.refused: list[str] = []

    @property
    def is_exhausted(self) -> bool:
        """Whether the download met its limit."""
        return self._left_bytes < 0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_SECONDS_MAX) or self._failure is not None:
            raise OSError(f"the index proxy did not start: {self._failure}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS_MAX)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # It ends the connections, too.
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._handle, self._socket_path, limit=HEAD_BYTES_MAX)
        # The folder around it is closed to all but the installation's uid.
        self._socket_path.chmod(0o666)
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots:
                await self._serve_one(reader, writer)
        except RefusedRequest as refusal:
            if len(self.refused) < REFUSALS_KEPT_MAX:
                self.refused.append(str(refusal))
                self._log(f"refused a connection: {refusal}")
            await answer(writer, refusal.status, str(refusal))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            await answer(writer, "502 Bad Gateway", str(error) or type(error).__name__)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_SECONDS_MAX)
        request = parse_request(head[:-4], READ_ONLY)
        check_allowed(request, self._allowed)
        scheme = "https" if request.method == "CONNECT" else "http"
        upstream = self._settings.upstream_for(request.address[0], scheme)
        remote_reader, remote_writer = await asyncio.wait_for(_dial(request, upstream), CONNECT_SECONDS_MAX)
        try:
            if request.method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await first_of(self._relay(reader, remote_writer), self._relay_down(remote_reader, writer))
            else:
                remote_writer.write(_plain_head(request, upstream))
                await self._relay_down(remote_reader, writer)
        finally:
            remote_writer.close()

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()

    async def _relay_down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """From the index to the installer, within the limit of bytes and of silence."""
        while data := await asyncio.wait_for(source.read(CHUNK_BYTES), IDLE_SECONDS_MAX):
            self._left_bytes -= len(data)
            if self.is_exhausted:
                self._log("the download is over its limit")
                return
            sink.write(data)
            await sink.drain()


async def _dial(
    request: ProxyRequest, upstream: Upstream | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the request's own bytes can be sent."""
    if upstream is None:
        return await asyncio.open_connection(*request.address)
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    if request.method == "CONNECT":
        target = authority(request.address)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *_upstream_headers(upstream)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        reply = await reader.readuntil(b"\r\n\r\n")
        if reply.split(b" ", 2)[1:2] != [b"200"]:
            writer.close()
            raise OSError(f"the node's own proxy answered {reply.splitlines()[0].decode('latin-1')}")
    return reader, writer


def _plain_head(request: ProxyRequest, upstream: Upstream | None) -> bytes:
    """The head to send on: one request for one connection, so that none can hide behind it."""
    host = authority(request.address)
    target = f"http://{host}{request.path}" if upstream else request.path
    kept = [f"{name}: {value}" for name, value in request.headers if name.lower() not in DROPPED_HEADERS]
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *kept]
    return ("\r\n".join([*lines, *(_upstream_headers(upstream) if upstream else ())]) + "\r\n\r\n").encode(
        "ascii"
    )


def _upstream_headers(upstream: Upstream) -> list[str]:
    return [f"Proxy-Authorization: {upstream.authorization}"] if upstream.authorization else []
