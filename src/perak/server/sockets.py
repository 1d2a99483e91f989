"""An agent's WebSocket on the port of the API, without a task, a queue or a framework of its own.

uvicorn hands the connection over when a request asks for the upgrade. Thousands of agents are quiet most of
the time: what each costs then is this object, the frame parser of `websockets`, and the transport.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from perak.server.connections import Full, Seat
from perak.server.patience import PatientProtocol
from perak.wire import session as wire

UNREAD_BYTES_MAX = 4 * 2**20
"""What waits for an agent that does not read; beyond it the connection is cut. The largest frame is 1 MiB."""
CLOSE_SECONDS = 5.0
"""An agent answers the end of a session within a round trip; then the connection is cut."""
GOING_AWAY = 1012
"""The exchange restarts (IANA's registry of close codes): the agent dials again."""

_CUT = b""
"""The sans-I/O protocol's sign that nothing more is to be sent."""
_logger = logging.getLogger("perak.websocket")


class Talk(Protocol):
    """What is said over a socket: called on the event loop, in order."""

    def on_open(self) -> None: ...

    def on_frame(self, data: bytes) -> None:
        """A whole message."""

    def on_pong(self, seconds: float) -> None:
        """A ping was answered, so long after it was sent."""

    def on_closed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection that asks for an upgrade to another WebSocket than an agent's session."""

    request: Request
    protocol: ServerProtocol
    transport: asyncio.Transport
    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    seat: Seat | Full | None


class AgentSocket(asyncio.Protocol):
    """One connection, from the request for an upgrade to its end; made by uvicorn, with its own arguments."""

    __slots__ = (
        "_closing",
        "_connections",
        "_parts",
        "_pinged",
        "_protocol",
        "_seat",
        "_talk",
        "_tasks",
        "_transport",
    )

    talk: ClassVar[Callable[[AgentSocket], Talk]]
    hand_over: ClassVar[Callable[[Handover], asyncio.Protocol | None]]

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: object = None) -> None:
        self._connections: set[Any] = server_state.connections
        self._tasks: set[asyncio.Task[None]] = server_state.tasks
        self._protocol = ServerProtocol(max_size=wire.FRAME_BYTES_MAX, logger=_logger)
        self._talk: Talk | None = None
        self._parts: list[bytes] | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._seat: Seat | Full | None = None
        self._pinged: tuple[bytes, float] | None = None

    @property
    def address(self) -> str | None:
        """Where the connection comes from: a proxy's, if one stands in between."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else None

    # What uvicorn and the event loop call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        handed_over_by = self._transport.get_protocol()
        if isinstance(handed_over_by, PatientProtocol):
            self._seat = handed_over_by.seat

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._upgrade(event)
            else:
                self._on_part(cast(Frame, event))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if isinstance(self._seat, Seat):
            self._seat.leave()
        if self._talk is not None:
            self._talk.on_closed()
            self._talk = None  # Each holds the other.

    def shutdown(self) -> None:
        """The server is about to end."""
        self.close(GOING_AWAY)

    # What the talk calls

    def send(self, frame: wire.FromExchange) -> None:
        """Send a frame, if the connection is still there; an agent that does not read is cut off."""
        if self._closing is not None or self._transport.is_closing():
            return
        try:
            self._protocol.send_text(wire.encode(frame))
        except InvalidState:
            return  # The agent has just said that it ends the session.
        self._flush()
        if self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._transport.abort()

    def ping(self) -> None:
        """Ask for a pong; nobody can answer it before it came, as it holds a fresh random number."""
        if self._closing is not None or self._transport.is_closing():
            return
        self._pinged = os.urandom(8), time.perf_counter()
        try:
            self._protocol.send_ping(self._pinged[0])
        except InvalidState:
            return
        self._flush()

    def close(self, code: int) -> None:
        """End the session; what was sent before still arrives."""
        if self._closing is not None or self._transport.is_closing():
            return
        self._closing = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)
        try:
            self._protocol.send_close(code)
        except InvalidState:
            self._transport.close()
            return
        self._transport.resume_reading()  # The agent's answer has to be read.
        self._flush()

    def pause(self) -> None:
        """Stop reading, and TCP stops the agent."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Work on what was said, which the server waits for when it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _upgrade(self, request: Request) -> None:
        if request.path.partition("?")[0] != wire.PATH:
            if self._handed_over(request):
                return
            nothing = "There is no WebSocket here.\n"
            self._protocol.send_response(self._protocol.reject(HTTPStatus.NOT_FOUND, nothing))
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._flush()
            self._talk = type(self).talk(self)
            self._talk.on_open()

    def _handed_over(self, request: Request) -> bool:
        """Whether somebody else takes the connection, who then has all of it."""
        handover = Handover(
            request, self._protocol, self._transport, self._connections, self._tasks, self._seat
        )
        taker = type(self).hand_over(handover)
        if taker is None:
            return False
        self._connections.discard(self)
        self._seat = None
        # uvicorn sets us once more when it has handed over.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, taker)
        taker.connection_made(self._transport)
        return True

    def _on_part(self, frame: Frame) -> None:
        """A message may come in parts; the parser has seen that they fit together, and bounds their sum."""
        if frame.opcode is Opcode.PONG:
            self._on_pong(bytes(frame.data))
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return  # The parser answers pings and closes.
        data = bytes(frame.data)
        if not frame.fin:
            self._parts = [*(self._parts or []), data]
            return
        if self._parts is not None:
            data, self._parts = b"".join([*self._parts, data]), None
        if self._talk is not None and self._closing is None:
            self._talk.on_frame(data)

    def _on_pong(self, data: bytes) -> None:
        pinged, self._pinged = self._pinged, None
        if pinged is not None and pinged[0] == data and self._talk is not None and self._closing is None:
            self._talk.on_pong(time.perf_counter() - pinged[1])

    def _flush(self) -> None:
        for chunk in self._protocol.data_to_send():
            if chunk != _CUT:
                self._transport.write(chunk)
            elif not self._transport.is_closing():
                self._transport.close()


def agent_sockets(
    talk: Callable[[AgentSocket], Talk], hand_over: Callable[[Handover], asyncio.Protocol | None]
) -> type[AgentSocket]:
    """The sockets that say `talk`, as uvicorn takes them; `hand_over` may take those of other paths."""
    own = {"__slots__": (), "talk": staticmethod(talk), "hand_over": staticmethod(hand_over)}
    return type("AgentSocket", (AgentSocket,), own)
