"""How long a stranger may take over a request, and how much of it is read: a slow drip costs nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perak.server.connections import RETRY_AFTER_SECONDS, Connections, Full, Seat

HEAD_BYTES_MAX = 64 * 1024
"""A request's line and headers; ours have 2 kB, and a node's signature in one some 10 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds that are waited for, counted from when a part of a request could begin."""

    head_seconds: float = 15.0
    """The request's line and headers: they come in one packet, on a bad line in a few seconds."""
    body_seconds: float = 60.0
    """A JSON body, of at most a megabyte: 140 kbit/s."""
    piece_seconds: float = 30.0
    """The next piece of a stream, such as a work folder."""
    stream_bytes_per_second: int = 4_096
    """The least pace of a stream after its first minute: one byte now and then is no upload."""
    linger_seconds: float = 5.0
    """What still comes of a body after its answer: then the connection is cut."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on a head's time and size, which it lacks, and on an unread body."""

    patience = Patience()
    counted: Connections
    seat: Seat | Full
    """Where the connection is counted. A protocol that it is handed to at an upgrade gives the seat back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn's own narrowing
        self.seat = self.counted.enter(self.client[0] if self.client else "")
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head, self._in_body = True, False
        self._cut_after(self.patience.head_seconds)
        if isinstance(self.seat, Full):
            self._refuse(self.seat)

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep()
        if isinstance(self.seat, Seat):
            self.seat.leave()
        super().connection_lost(exc)

    def _refuse(self, full: Full) -> None:
        """Answer before the request is read, as reading it is what there is no room for."""
        body = f"{full.reason}\n".encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nretry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response(
                f"The head of a request may have {HEAD_BYTES_MAX:,} bytes; this one has more."
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._timer is None:
            self._cut_after(self.patience.head_seconds)

    def on_headers_complete(self) -> None:
        self._keep()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._keep()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self._timer is None:
            self._cut_after(self.patience.linger_seconds)

    def _cut_after(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._cut)

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort()


def protocol(patience: Patience, counted: Connections) -> type[Any]:
    """The protocol with this patience, as uvicorn takes it; its connections are counted together."""
    return type("PatientProtocol", (PatientProtocol,), {"patience": patience, "counted": counted})
