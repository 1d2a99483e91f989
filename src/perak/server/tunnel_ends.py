"""The two ends of a tunnel, a client's WebSocket and a node's, and the copying between them.

What they carry is encrypted between client and node (`perak.wire.tunnel`). A side is read only while the
other takes what came, so a slow reader holds up its own tunnel alone, and what waits here is bounded. An end
has no task while bytes move: what comes in on one transport goes out on the other.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode

from perak.adapters.db.views.tunnels import tunnel_ended
from perak.domain.errors import DomainError, NotFound
from perak.server.auth import caller_of
from perak.server.connections import Seat
from perak.server.logging import get_logger
from perak.server.routes.node_files import node_of
from perak.server.services import Services
from perak.server.sockets import GOING_AWAY, Handover
from perak.server.tunnels import End, Tunnel

CLOSE_ENDED = 4000
"""Private range of RFC 6455: the close frame's reason is a sentence for the renter."""
CLOSE_SECONDS = 2.0
"""An end that reads nothing can't be told why; it is cut."""
REASON_BYTES_MAX = 123
"""RFC 6455, 5.5."""
WRITE_HIGH_BYTES = 1024 * 1024
"""What may wait for an end before the other is read no more: some messages, so that neither stands idle."""

_PATH = re.compile(r"/v1/(node/)?tunnels/([A-Za-z0-9_-]{1,64})")
_CUT = b""
_log = get_logger(__name__)


def tunnel_end(handover: Handover, services: Services) -> asyncio.Protocol | None:
    """What takes a connection to a tunnel's path; None for any other path."""
    match = _PATH.fullmatch(handover.request.path)
    if match is None:
        return None
    return TunnelEnd(handover, services, tunnel=match[2], is_node=match[1] is not None)


class TunnelEnd(asyncio.Protocol):
    """One connection, from its request to its end."""

    def __init__(self, handover: Handover, services: Services, *, tunnel: str, is_node: bool) -> None:
        self._request, self._protocol = handover.request, handover.protocol
        self._transport = handover.transport
        self._connections, self._tasks, self._seat = handover.connections, handover.tasks, handover.seat
        self._services = services
        self._id, self._is_node = tunnel, is_node
        self._tunnel: Tunnel | None = None
        self._other: TunnelEnd | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What the event loop and the server call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        self._transport.pause_reading()
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._start(self._come())

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            frame = cast(Frame, event)
            if frame.opcode in (Opcode.BINARY, Opcode.CONT) and self._other is not None:
                self._other.pass_on(frame)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if isinstance(self._seat, Seat):
            self._seat.leave()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        if self._other is not None and not self._other._transport.is_closing():
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and not self._other._transport.is_closing():
            self._other._transport.resume_reading()

    def shutdown(self) -> None:
        """The server is about to end."""
        self.close("the exchange restarts; open the tunnel again", code=GOING_AWAY)

    # What the tunnel calls

    def join(self, other: End) -> None:
        assert isinstance(other, TunnelEnd)
        self._other = other
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pass_on(self, frame: Frame) -> None:
        """Write what came from the other end, as it came."""
        if self._transport.is_closing() or self._tunnel is None:
            return
        self._tunnel.moved_at = time.monotonic()
        self._transport.writelines((_header(frame), frame.data))

    def close(self, reason: str, *, code: int = CLOSE_ENDED) -> None:
        if self._transport.is_closing():
            return
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)
        self._other = None
        try:
            self._protocol.send_close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))
        except InvalidState:
            self._transport.close()
            return
        self._flush()
        self._transport.resume_reading()  # The answer to the close has to be read.

    # How an end comes

    async def _come(self) -> None:
        try:
            tunnel = self._tunnel = await self._found()
        except DomainError as error:
            self._protocol.send_response(self._protocol.reject(HTTPStatus.FORBIDDEN, f"{error.detail}\n"))
            self._flush()
            self._transport.close()
            return
        self._protocol.send_response(self._protocol.accept(self._request))
        self._flush()
        if self._is_node:
            tunnel.node.set_result(self)
            return
        tunnel.client.set_result(self)
        reason = "the tunnel was closed"
        try:
            reason = await _joined(self._services, tunnel)
        except Exception:
            _log.exception("a tunnel failed", tunnel=tunnel.id[:8])
        finally:
            self._services.tunnels.forget(tunnel)
            self.close(reason)
            if tunnel.node.done():
                tunnel.node.result().close(reason)
            _log.info("tunnel closed", tunnel=tunnel.id[:8], reason=reason)

    async def _found(self) -> Tunnel:
        """The tunnel, if it is this caller's and nobody came before. Raises DomainError."""
        authorization = self._request.headers.get("Authorization", "")
        address = str((self._transport.get_extra_info("peername") or ("local",))[0])
        services, path = self._services, self._request.path
        if self._is_node:
            node = await node_of(services, authorization, method="GET", path=path, address=address)
            tunnel = services.tunnels.find(self._id)
            if tunnel is not None and tunnel.target.node == node and not tunnel.node.done():
                return tunnel
        else:
            caller = await caller_of(services, authorization, address=address)
            tunnel = services.tunnels.find(self._id)
            if tunnel is not None and tunnel.caller.key == caller.key and not tunnel.client.done():
                return tunnel
        raise NotFound("there is no such tunnel here, or its time is over", code="no_tunnel")

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _flush(self) -> None:
        for chunk in self._protocol.data_to_send():
            if chunk != _CUT:
                self._transport.write(chunk)
            elif not self._transport.is_closing():
                self._transport.close()


def _header(frame: Frame) -> bytes:
    """Of a frame from a server, which is not masked (RFC 6455, 5.2)."""
    first, length = (frame.fin << 7) | frame.opcode, len(frame.data)
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 2**16:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


async def _joined(services: Services, tunnel: Tunnel) -> str:
    """Copy until one side, the run, the key or the patience ends; why, for the renter."""
    if not await _node_came(services, tunnel):
        return "the node did not answer; it may be offline, try again"
    client, node = tunnel.client.result(), tunnel.node.result()
    client.join(node)
    node.join(client)
    watching = asyncio.create_task(_watch(services, tunnel))
    waited: list[asyncio.Future[Any]] = [client.closed, node.closed, watching]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            return watching.result()
        return "the tunnel was closed" if client.closed.done() else "the node closed the tunnel"
    finally:
        watching.cancel()


async def _node_came(services: Services, tunnel: Tunnel) -> bool:
    """Wait for it, and tell it again."""
    periods, client = services.tunnels.periods, tunnel.client.result()
    until = time.monotonic() + periods.dial_seconds_max
    while not tunnel.node.done():
        waited: list[asyncio.Future[Any]] = [tunnel.node, client.closed]
        await asyncio.wait(waited, timeout=periods.dial_again_seconds, return_when=asyncio.FIRST_COMPLETED)
        if client.closed.done() or time.monotonic() > until or services.stopping.is_set():
            return tunnel.node.done()
        if not tunnel.node.done():
            services.tunnels.dial_again(tunnel)
    return True


async def _watch(services: Services, tunnel: Tunnel) -> str:
    """Returns why, when the tunnel must end."""
    periods = services.tunnels.periods
    assert tunnel.target.lease is not None
    with services.hub.job(tunnel.target.job) as wakeup:
        while True:
            wakeup.clear()
            async with services.db.connection() as connection:
                why = await tunnel_ended(connection, lease=tunnel.target.lease, key=tunnel.caller.key)
            if why is not None:
                return why
            if time.monotonic() - tunnel.moved_at > periods.idle_seconds_max:
                return f"nothing moved for {periods.idle_seconds_max:g} s"
            if services.stopping.is_set():
                return "the exchange restarts; open the tunnel again"
            await wakeup.wait(periods.look_seconds)
