"""The agent's end of the session with the exchange (`perak.wire.session`): dials out, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from perak.domain.errors import DomainError, InvalidInput, Unavailable
from perak.wire.session import (
    FRAME_BYTES_MAX,
    PATH,
    PROTOCOL_VERSION,
    REPORTS_UNACKNOWLEDGED_MAX,
    Ack,
    Beat,
    Certificate,
    Challenge,
    Desired,
    Dial,
    FromExchange,
    Hello,
    Prove,
    Refused,
    ReportFrame,
    Welcome,
    decode_from_exchange,
    encode,
)

log = logging.getLogger(__name__)

SEND_BATCH = 32
"""Reports read from the journal at a time."""
QUICK_SECONDS = 5.0
"""An exchange that was away for seconds has all nodes again some seconds later; if delays went on to double,
half of them would be ten seconds late. 2,000 agents then dial 500 times a second, which costs it little."""


class SessionRefused(DomainError):
    """The exchange does not want this node, and trying again can't help."""

    code = "session_refused"


class Reports(Protocol):
    """Where reports wait; the journal."""

    def after(self, seq: int, *, limit: int) -> list[tuple[int, str]]: ...

    def mark_sent(self, seq: int) -> None: ...


class Peer(Protocol):
    """Who hears of what the exchange says; called on the event loop, one at a time and in order."""

    def hello(self, nonce: str, agent_id: str) -> str:
        """The signed Hello."""
        ...

    def on_welcome(self, welcome: Welcome) -> None: ...

    def on_ack(self, seq: int) -> None: ...

    def on_desired(self, desired: Desired) -> None: ...

    def on_certificate(self, chain_pem: str) -> None: ...

    def on_dial(self, dial: Dial) -> None: ...

    def on_prove(self, prove: Prove) -> None: ...

    def on_closed(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Link:
    """One session after the other with one exchange. `wake` says that the journal has news."""

    url: str
    tls: ssl.SSLContext | None
    reports: Reports
    peer: Peer
    open_timeout_seconds: float
    silent_beats_max: int
    reconnect_first_seconds: float
    reconnect_max_seconds: float
    connected: bool = False
    agent_id: str = field(default_factory=lambda: secrets.token_hex(8))
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _acked: int = 0
    _sent: int = 0
    _heard_at: float = 0.0
    _told: bool = False

    def wake(self) -> None:
        """There are new reports to send."""
        self._news.set()

    async def run(self) -> None:
        """Hold a session for ever. Raises SessionRefused when the exchange turns this node away for good."""
        delays = backoff(self.reconnect_first_seconds, self.reconnect_max_seconds)
        while True:
            was_welcome = False
            try:
                was_welcome = await self._session()
            except (OSError, TimeoutError, WebSocketException, InvalidInput, Unavailable) as error:
                was_welcome = self.connected
                self._tell_why(error)
            finally:
                if self.connected:
                    self.connected = False
                    self.peer.on_closed()
            if was_welcome:
                delays = backoff(self.reconnect_first_seconds, self.reconnect_max_seconds)
            await asyncio.sleep(next(delays))

    def _tell_why(self, error: Exception) -> None:
        """As a warning once, and in the background while it lasts."""
        level = logging.INFO if self._told else logging.WARNING
        self._told = True
        log.log(level, "no session with %s: %s; trying again", self.url, error or type(error).__name__)

    async def _session(self) -> bool:
        async with connect(
            _websocket_url(self.url),
            ssl=self.tls,
            compression=None,
            max_size=FRAME_BYTES_MAX,
            ping_interval=None,  # Beats of our own decide, on both ends by the same rule.
            open_timeout=self.open_timeout_seconds,
            close_timeout=1,
            proxy=None,
        ) as socket:
            async with asyncio.timeout(self.open_timeout_seconds):
                welcome = await self._shake_hands(socket)
            self.peer.on_welcome(welcome)
            self._acked = self._sent = welcome.ack
            self._heard_at = time.monotonic()
            self.connected = True
            self._told = False
            log.info("session open, reports acknowledged up to %d", welcome.ack)
            await self._converse(socket, welcome.beat_interval_seconds)
        return True

    async def _shake_hands(self, socket: ClientConnection) -> Welcome:
        challenge = decode_from_exchange(await socket.recv())
        if isinstance(challenge, Refused):
            _raise_refused(challenge)
        if not isinstance(challenge, Challenge) or challenge.protocol != PROTOCOL_VERSION:
            raise InvalidInput("the exchange speaks another version of the protocol; update the older end")
        await _send(socket, Hello(jws=self.peer.hello(challenge.nonce, self.agent_id)))
        answer = decode_from_exchange(await socket.recv())
        if isinstance(answer, Refused):
            _raise_refused(answer)
        if not isinstance(answer, Welcome):
            raise InvalidInput("the exchange did not answer the hello")
        return answer

    async def _converse(self, socket: ClientConnection, beat_interval_seconds: float) -> None:
        """Until the connection ends; the first of the three to end takes the others with it."""
        tasks = [
            asyncio.create_task(self._receive(socket)),
            asyncio.create_task(self._send_reports(socket)),
            asyncio.create_task(self._beat(socket, beat_interval_seconds)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, socket: ClientConnection) -> None:
        async for text in socket:
            self._heard_at = time.monotonic()
            self._on_frame(decode_from_exchange(text))

    def _on_frame(self, frame: FromExchange) -> None:
        match frame:
            case Ack(seq=seq):
                if seq > self._sent:
                    raise InvalidInput(f"the exchange acknowledged {seq}, sent were {self._sent}")
                if seq > self._acked:
                    self._acked = seq
                    self.peer.on_ack(seq)
                    self._news.set()  # The window has moved.
            case Desired():
                self.peer.on_desired(frame)
            case Certificate(chain=chain):
                self.peer.on_certificate(chain)
            case Dial():
                self.peer.on_dial(frame)
            case Prove():
                self.peer.on_prove(frame)
            case Refused():
                _raise_refused(frame)
            case _:
                pass  # Beats count as heard; a second Challenge or Welcome says nothing new.

    async def _send_reports(self, socket: ClientConnection) -> None:
        """All that is in the journal, in order, at most REPORTS_UNACKNOWLEDGED_MAX ahead."""
        while True:
            self._news.clear()
            room = REPORTS_UNACKNOWLEDGED_MAX - (self._sent - self._acked)
            batch = self.reports.after(self._sent, limit=min(room, SEND_BATCH)) if room > 0 else []
            for seq, jws in batch:
                self.reports.mark_sent(seq)
                self._sent = seq
                await _send(socket, ReportFrame(jws=jws))
            if not batch:
                await self._news.wait()

    async def _beat(self, socket: ClientConnection, interval_seconds: float) -> None:
        while True:
            await _send(socket, Beat(at=int(time.time() * 1000)))
            await asyncio.sleep(interval_seconds)
            if time.monotonic() - self._heard_at > self.silent_beats_max * interval_seconds:
                raise Unavailable(f"the exchange was silent for {self.silent_beats_max} beats")


def backoff(first_seconds: float, max_seconds: float) -> Iterator[float]:
    """Delays that double up to QUICK_SECONDS and then grow by a fifth up to `max_seconds`, each spread over
    its upper half."""
    delay = first_seconds
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        delay = min((2 if 2 * delay <= QUICK_SECONDS else 1.2) * delay, max_seconds)


async def _send(socket: ClientConnection, frame: Hello | Beat | ReportFrame) -> None:
    await socket.send(encode(frame).decode())


def _raise_refused(refused: Refused) -> None:
    if refused.retry:
        raise Unavailable(f"the exchange refused the session for now: {refused.reason}")
    raise SessionRefused(f"The exchange refused this node: {refused.reason}")


def _websocket_url(url: str) -> str:
    assert url.startswith("http"), "http: becomes ws:, https: becomes wss:"
    return "ws" + url.removeprefix("http").rstrip("/") + PATH
