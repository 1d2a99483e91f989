"""Wake-ups: who waits for the market, a node's leases or a job's log is told at once.

A wake-up is a hint, never truth: whoever is woken reads the database, and whoever waits also looks by itself
now and then. Hints for other replicas go through PostgreSQL's NOTIFY, gathered for a moment so that a busy
exchange does not queue at its global lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator

import msgspec

from perak.app.effects import Effect, JobChanged, MarketChanged, NodeChanged

CHANNEL = "perak_hints"
GATHER_SECONDS = 0.02
"""How long hints for other replicas are gathered into one notification."""
PAYLOAD_BYTES_MAX = 7_900
"""PostgreSQL refuses notifications of 8,000 bytes and more."""
OUTBOX_MAX = 10_000
"""Hints kept while the database is away; more are dropped, as they are hints."""

KEYS = "keys"
"""The hint that a key was revoked."""
NODE = "node"
"""The hint that a node's leases changed, or the node was revoked."""
DIAL = "dial"
"""The hint that a node is to dial in for a tunnel; it carries what the node needs to know."""

Hint = tuple[str, str]


class DialHint(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel waits at the replica `url` for this node; `client` is the client's certificate."""

    node: str
    tunnel: str
    lease: str
    run: str
    client: str
    url: str


class _Message(msgspec.Struct, array_like=True):
    """Who sends, and (what, which) of each hint."""

    replica: str
    hints: list[Hint]


class Wakeup:
    """One waiter's flag. Clear it, read the truth, then wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, timeout: float) -> bool:
        """Wait until it is set, at most `timeout` seconds; whether it was set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        return self._event.is_set()


class Hub:
    """The wake-ups of one replica."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._waiting: dict[Hint, set[Wakeup]] = defaultdict(set)
        self._outbox: dict[Hint, None] = {}
        self._outbox_filled = asyncio.Event()
        self._on_keys: list[Callable[[], None]] = []
        self._on_node: list[Callable[[str], None]] = []
        self._on_dial: list[Callable[[DialHint], None]] = []

    @contextlib.contextmanager
    def market(self) -> Iterator[Wakeup]:
        with self._subscribed(("market", "")) as wakeup:
            yield wakeup

    @contextlib.contextmanager
    def job(self, job: str) -> Iterator[Wakeup]:
        with self._subscribed(("job", job)) as wakeup:
            yield wakeup

    def dial(self, hint: DialHint) -> None:
        """Tell the node's session, on whichever replica it is."""
        self._send([(DIAL, msgspec.json.encode(hint).decode())])

    def on_dial(self, callback: Callable[[DialHint], None]) -> None:
        self._on_dial.append(callback)

    def on_keys_changed(self, callback: Callable[[], None]) -> None:
        self._on_keys.append(callback)

    def on_node_changed(self, callback: Callable[[str], None]) -> None:
        """Called with the node: one for all of them, where thousands would wait."""
        self._on_node.append(callback)

    def publish(self, effects: Iterable[Effect]) -> None:
        """Wake who waits here, and pass it on. Call it after the commit."""
        self._send(_hint(effect) for effect in effects)

    def keys_changed(self) -> None:
        self._send([(KEYS, "")])

    def receive(self, payload: str) -> None:
        """A notification of some replica; our own are passed over."""
        with contextlib.suppress(msgspec.MsgspecError):
            message = msgspec.json.decode(payload, type=_Message)
            if message.replica != self._replica:
                for hint in message.hints:
                    self._wake(hint)

    async def forward(self, notify: Callable[[str, str], Awaitable[None]]) -> None:
        """Pass hints on to other replicas, for ever. Raises what `notify` raises; the hints are kept."""
        while True:
            await self._outbox_filled.wait()
            await asyncio.sleep(GATHER_SECONDS)
            hints = list(self._outbox)
            for payload in _payloads(self._replica, hints):
                await notify(CHANNEL, payload)
            for hint in hints:
                self._outbox.pop(hint, None)
            if not self._outbox:
                self._outbox_filled.clear()

    def _send(self, hints: Iterable[Hint]) -> None:
        for hint in dict.fromkeys(hints):
            self._wake(hint)
            if len(self._outbox) < OUTBOX_MAX:
                self._outbox[hint] = None
                self._outbox_filled.set()

    def _wake(self, hint: Hint) -> None:
        if hint[0] == KEYS:
            for callback in self._on_keys:
                callback()
        if hint[0] == NODE:
            for told in self._on_node:
                told(hint[1])
        if hint[0] == DIAL:
            with contextlib.suppress(msgspec.MsgspecError):
                dial = msgspec.json.decode(hint[1], type=DialHint)
                for dialled in self._on_dial:
                    dialled(dial)
        for wakeup in self._waiting.get(hint, ()):
            wakeup.set()

    @contextlib.contextmanager
    def _subscribed(self, hint: Hint) -> Iterator[Wakeup]:
        wakeup = Wakeup()
        self._waiting[hint].add(wakeup)
        try:
            yield wakeup
        finally:
            self._waiting[hint].discard(wakeup)
            if not self._waiting[hint]:
                del self._waiting[hint]


def _hint(effect: Effect) -> Hint:
    match effect:
        case MarketChanged():
            return ("market", "")
        case NodeChanged(node):
            return (NODE, node)
        case JobChanged(job):
            return ("job", job)


def _payloads(replica: str, hints: list[Hint]) -> Iterator[str]:
    """The hints in as few notifications as they fit."""
    part: list[Hint] = []
    size = len(replica) + 16
    for hint in hints:
        length = len(msgspec.json.encode(hint)) + 1
        if part and size + length > PAYLOAD_BYTES_MAX:
            yield msgspec.json.encode(_Message(replica, part)).decode()
            part, size = [], len(replica) + 16
        part.append(hint)
        size += length
    if part:
        yield msgspec.json.encode(_Message(replica, part)).decode()
