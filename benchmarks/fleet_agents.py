"""The load of `benchmarks.fleet`: thousands of scripted agents in one lean process.

Each holds a real key, dials as `perak.agent.link` does (its own back-off with jitter), signs its Hello,
beats, posts its offer, reports its run as started and meters it; only sandbox, journal and disk are left
out. Reads the fleet from the file that it is given; writes a `Tally` as a line of JSON several times a
second, until it is ended.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import resource
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from perak.agent.link import backoff
from perak.domain.offer import OfferAsk
from perak.domain.report import Body, Metered, OfferPosted, RunStarted
from perak.wire import session as wire
from perak.wire.signing import SigningKey, sign

RAMP_SECONDS = 10.0
"""The first dials are spread over this time."""
TALLY_SECONDS = 0.05
OPEN_SECONDS_MAX = 10.0
RECONNECT_SECONDS = (0.3, 30.0)
METER_SECONDS = 5.0
SILENT_BEATS_MAX = 3
"""These four are the defaults of `perak.agent.settings.Limits`."""
SPARE_FILES = 256
"""Beside the connections: what Python and the loop have open."""
OFFER = OfferAsk(
    region="DE",
    cpu_model="CPU",
    cpu_milli=1000,
    memory_bytes=8 * 10**9,
    disk_bytes=50 * 10**9,
    price_cpu=36_000,
)


class Member(msgspec.Struct):
    """A node of the fleet: its id, the seed of its key, and its certificates (DER, base64)."""

    node: str
    seed: str
    chain: tuple[str, ...]


class Fleet(msgspec.Struct):
    url: str
    members: list[Member]


class Tally(msgspec.Struct):
    """What the agents have seen at a time (monotonic seconds of this machine)."""

    at: float
    open: int
    offered: int
    running: int
    epochs: int
    """The sum of the epochs of the runs that are held: it grows where one was run again."""
    refused: int


class Agent(asyncio.Protocol):
    """One agent: the protocol of its connection, dialled again and again."""

    def __init__(self, member: Member, host: str, port: int, *, offer: OfferAsk = OFFER) -> None:
        self.node, self.offer = member.node, offer
        self.key = SigningKey.from_seed(base64.b64decode(member.seed))
        self.chain = tuple(base64.b64decode(der) for der in member.chain)
        self.agent_id = os.urandom(8).hex()
        self.host, self.port = host, port
        self.open = self.offered = False
        self.seq = 0
        self.refused = 0
        self.runs: dict[str, wire.LeaseOrder] = {}
        self.started: dict[str, int] = {}
        self.kept: dict[int, str] = {}
        self._buffer = bytearray()
        self._upgraded = False
        self._transport: asyncio.Transport | None = None
        self._heard_at = 0.0
        self._delays = self._backoff()
        self._timers: list[asyncio.TimerHandle] = []

    async def dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                await loop.create_connection(lambda: self, self.host, self.port)
        except (OSError, TimeoutError):
            self._dial_later()

    def _dial_later(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(next(self._delays), lambda: loop.create_task(self.dial()))

    def _backoff(self) -> Iterator[float]:
        return backoff(*RECONNECT_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._upgraded = False
        self._buffer.clear()
        self._timers = [asyncio.get_running_loop().call_later(OPEN_SECONDS_MAX, self._give_up)]
        transport.write(
            f"GET {wire.PATH} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\nUser-Agent: fleet\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        if self.open:
            self.open = False
            self._delays = self._backoff()
        self._dial_later()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._heard_at = time.monotonic()
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.refused += 1
                self._give_up()
                return
            self._upgraded, self._buffer = True, rest
        for opcode, payload in self._frames():
            if opcode == 1:
                self._on_frame(wire.decode_from_exchange(payload))
            elif opcode == 8:
                self._give_up()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Whole frames of the server: unmasked, never in parts."""
        while len(self._buffer) >= 2:
            opcode, length, start = self._buffer[0] & 15, self._buffer[1] & 127, 2
            if length == 126 and len(self._buffer) >= 4:
                length, start = int.from_bytes(self._buffer[2:4], "big"), 4
            elif length >= 126:
                length, start = int.from_bytes(self._buffer[2:10], "big"), 10
            if len(self._buffer) < start + length:
                return
            payload = bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            yield opcode, payload

    def _on_frame(self, frame: wire.FromExchange) -> None:
        match frame:
            case wire.Challenge(nonce=nonce):
                body = wire.HelloBody(
                    nonce=nonce, node=self.node, agent_version="fleet", boot_id="boot",
                    agent_id=self.agent_id, at=now_ms(),
                )  # fmt: skip
                jws = sign(self.key, wire.encode(body), typ=wire.HELLO_TYPE, chain=self.chain)
                self._send(wire.Hello(jws=jws))
            case wire.Welcome(ack=ack, beat_interval_seconds=beat):
                self._on_welcome(ack, beat)
            case wire.Ack(seq=seq):
                self.offered = True
                for number in [number for number in self.kept if number <= seq]:
                    del self.kept[number]
            case wire.Desired(leases=leases):
                self.runs = {order.run: order for order in leases}
                for order in leases:
                    if order.run not in self.started:
                        self._start(order)
            case wire.Refused():
                self.refused += 1

    def _on_welcome(self, ack: int, beat_seconds: float) -> None:
        self.open = True
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        self.kept = {number: jws for number, jws in self.kept.items() if number > ack}
        for jws in self.kept.values():
            self._send(wire.ReportFrame(jws=jws))
        if not self.seq:
            self._report(OfferPosted(offer=self.offer))
        self._beat(beat_seconds, len(self._timers))
        self._meter()

    def _beat(self, seconds: float, slot: int) -> None:
        if time.monotonic() - self._heard_at > SILENT_BEATS_MAX * seconds:
            self._give_up()
            return
        self._send(wire.Beat(at=now_ms()))
        timer = asyncio.get_running_loop().call_later(seconds, self._beat, seconds, slot)
        self._timers[slot : slot + 1] = [timer]

    def _meter(self) -> None:
        for run, order in self.runs.items():
            self._report(
                Metered(
                    run=run, lease=order.lease, epoch=order.epoch, until=now_ms(), cpu_seconds=0.1,
                    memory_bytes=10**6, energy_joules=1.0, energy_method="model: fleet",
                )
            )  # fmt: skip
        self._timers[1:] = [asyncio.get_running_loop().call_later(METER_SECONDS, self._meter)]

    def _start(self, order: wire.LeaseOrder) -> None:
        self.started[order.run] = now_ms()
        self._report(
            RunStarted(
                run=order.run, lease=order.lease, epoch=order.epoch, started_at=self.started[order.run],
                tier="bubblewrap", enforced=("network",),
            )
        )  # fmt: skip

    def _report(self, body: Body) -> None:
        self.seq += 1
        payload = wire.encode_report(seq=self.seq, node=self.node, at=now_ms(), body=body)
        jws = self.kept[self.seq] = sign(self.key, payload, typ=wire.REPORT_TYPE, chain=self.chain)
        self._send(wire.ReportFrame(jws=jws))

    def _send(self, frame: wire.Hello | wire.Beat | wire.ReportFrame) -> None:
        """A masked text frame; the mask is zero, which leaves the payload as it is (RFC 6455, 5.3)."""
        assert self._transport is not None
        payload = wire.encode(frame)
        length = len(payload)
        head = (
            struct.pack("!BB", 0x81, 0x80 | length)
            if length < 126
            else struct.pack("!BBH", 0x81, 0xFE, length)
        )
        self._transport.write(head + b"\0\0\0\0" + payload)

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def run(fleet: Fleet) -> None:
    where = urlsplit(fleet.url)
    assert where.hostname
    assert where.port
    agents = [Agent(member, where.hostname, where.port) for member in fleet.members]
    loop = asyncio.get_running_loop()
    for agent in agents:
        loop.call_later(random.uniform(0, RAMP_SECONDS), lambda agent=agent: loop.create_task(agent.dial()))
    while True:
        held = [order for agent in agents for order in agent.runs.values()]
        tally = Tally(
            at=time.monotonic(),
            open=sum(agent.open for agent in agents),
            offered=sum(agent.offered for agent in agents),
            running=len(held),
            epochs=sum(order.epoch for order in held),
            refused=sum(agent.refused for agent in agents),
        )
        sys.stdout.write(msgspec.json.encode(tally).decode() + "\n")
        sys.stdout.flush()
        await asyncio.sleep(TALLY_SECONDS)


def main() -> None:
    allow_files(
        needed=len((fleet := msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Fleet)).members)
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(fleet))


def allow_files(*, needed: int) -> None:
    """Raise the limit of open files as far as the system lets us; say so where that is too little."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < needed + SPARE_FILES:
        raise SystemExit(
            f"the fleet needs {needed + SPARE_FILES} open files, and {hard} are allowed: ulimit -n"
        )


if __name__ == "__main__":
    main()
