"""A real exchange over real HTTP on loopback, and a node that says what a test tells it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from perak.domain.offer import OfferAsk
from perak.domain.report import Body, LogChunk, OfferPosted, RunExited, RunStarted
from perak.server.auth import new_secret
from perak.server.services import Services
from perak.server.serving import prepared
from perak.server.settings import Settings
from perak.wire import session as wire
from perak.wire.identity import from_pem
from perak.wire.invite import Invite
from perak.wire.signing import SealKey, SigningKey, sign

OFFER = OfferAsk(
    region="DE",
    cpu_model="Test CPU",
    cpu_milli=2000,
    memory_bytes=8 * 10**9,
    disk_bytes=50 * 10**9,
    price_cpu=360_000,
    pythons=("3.11",),
    takes=("image", "https", "s3", "job"),
    grants=("terminals",),
)
PATIENCE_SECONDS = 30.0
"""Only a failing test waits this long; a machine that is busy with others takes seconds."""
GREETED_SECONDS = 0.5
"""A newcomer that is kept waiting shows nothing of it; a refusal comes in milliseconds."""

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of addresses without TLS: httpx would load the system's authorities, 80 ms for each client."""

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)


@dataclass
class Running:
    """An exchange that serves, and a client with the operator's key."""

    url: str
    key: str
    services: Services
    client: httpx.AsyncClient

    def client_with(self, key: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, verify=PLAIN)

    async def submit(self, **changes: Any) -> str:
        job = {"name": "test", "run": "echo hi"} | changes
        answer = await self.client.post("/v1/jobs", json={"job": job})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def job(self, id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/v1/jobs/{id}")).json())

    async def new_project(self, name: str, *, roles: tuple[str, ...] = ("renter",)) -> str:
        """A project of its own; the secret of its key."""
        project = (await self.client.post("/v1/projects", json={"name": name})).json()["id"]
        body = {"name": "key", "roles": list(roles), "project": project}
        return str((await self.client.post("/v1/keys", json=body)).json()["secret"])


@contextlib.asynccontextmanager
async def running_exchange(database_url: str, state_dir: Path, **settings: Any) -> AsyncIterator[Running]:
    key = settings.pop("operator_key", None) or new_secret()
    wanted = Settings(
        database=database_url, state_dir=state_dir, port=0, operator_key=key, fund=100_000_000, **settings
    )
    ready = asyncio.Event()
    async with prepared(wanted, on_ready=ready.set) as (server, sockets, services, _):
        serving = asyncio.create_task(server.serve(sockets))
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE_SECONDS)
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(
                base_url=services.url, headers=headers, timeout=PATIENCE_SECONDS, verify=PLAIN
            ) as client:
                yield Running(services.url, key, services, client)
        finally:
            server.should_exit = True
            await serving


@dataclass
class ScriptedNode:
    """A node's end of the session, without a node behind it."""

    exchange: Running
    id: str
    key: SigningKey
    chain: tuple[bytes, ...]
    seal: SealKey = field(default_factory=SealKey.generate)
    agent_id: str = "first"
    seq: int = 0
    ack: int = 0
    leases: tuple[wire.LeaseOrder, ...] = ()
    frames: list[wire.FromExchange] = field(default_factory=list)
    closed: bool = False
    _socket: ClientConnection | None = None
    _reader: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def enrol(cls, exchange: Running, *, name: str = "node") -> ScriptedNode:
        token = (await exchange.client.post("/v1/invites", json={})).json()["token"]
        key, seal = SigningKey.generate(), SealKey.generate()
        answer = await exchange.client.post(
            "/v1/enrol", json=enrolment(Invite.decode(token).secret, key, name, seal=seal)
        )
        assert answer.status_code == 201, answer.text
        chain = answer.json()["certificate_chain"]
        certificates = tuple(from_pem(pem.encode()) for pem in _CERTIFICATE.findall(chain))
        return cls(exchange, answer.json()["node"], key, certificates, seal)

    async def dial(self, *, hello: Callable[[wire.HelloBody], wire.HelloBody] = lambda body: body) -> None:
        """Open the session; `hello` may change what is signed."""
        self._socket = await connect(
            self.exchange.url.replace("http", "ws", 1) + wire.PATH, compression=None, proxy=None
        )
        challenge = wire.decode_from_exchange(await self._socket.recv())
        assert isinstance(challenge, wire.Challenge)
        body = wire.HelloBody(
            nonce=challenge.nonce,
            node=self.id,
            agent_version="test",
            boot_id="boot",
            agent_id=self.agent_id,
            at=now_ms(),
        )
        jws = sign(self.key, wire.encode(hello(body)), typ=wire.HELLO_TYPE, chain=self.chain)
        await self._socket.send(wire.encode(wire.Hello(jws=jws)).decode())
        self._reader = asyncio.create_task(self._read(self._socket))

    async def open(self, *, offer: OfferAsk | None = OFFER) -> None:
        """Dial, be welcomed, and post an offer."""
        await self.dial()
        await self.until(lambda: any(isinstance(frame, wire.Welcome) for frame in self.frames))
        if offer is not None:
            await self.report(OfferPosted(offer=offer))

    async def greeted(self) -> None:
        """Wait until the exchange has had time to read Hello: a newcomer is kept waiting, or refused."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GREETED_SECONDS):
                await self.until(lambda: self.closed)

    async def beat(self) -> None:
        assert self._socket is not None
        await self._socket.send(wire.encode(wire.Beat(at=now_ms())).decode())

    async def send_report(self, body: Body, *, seq: int | None = None) -> int:
        """Send a report without waiting; its number."""
        assert self._socket is not None
        if seq is None:
            self.seq += 1
            seq = self.seq
        payload = wire.encode_report(seq=seq, node=self.id, at=now_ms(), body=body)
        jws = sign(self.key, payload, typ=wire.REPORT_TYPE, chain=self.chain)
        await self.send_frame(wire.ReportFrame(jws=jws))
        return seq

    async def send_frame(self, frame: wire.ReportFrame) -> None:
        assert self._socket is not None
        await self._socket.send(wire.encode(frame).decode())

    async def report(self, *bodies: Body) -> None:
        """Send reports and wait until they are durable."""
        for body in bodies:
            await self.send_report(body)
        await self.until(lambda: self.ack >= self.seq)

    async def lease_of(self, job: str) -> wire.LeaseOrder:
        """The order for a job, as soon as it is there."""
        return await self.until(lambda: next((order for order in self.leases if order.job == job), None))

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := condition()):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def request(
        self, method: str, path: str, *, signed_path: str | None = None, **rest: Any
    ) -> httpx.Response:
        """A signed HTTP request of the node."""
        payload = wire.RequestPayload(node=self.id, method=method, path=signed_path or path, at=now_ms())
        jws = sign(self.key, wire.encode(payload), typ=wire.REQUEST_TYPE)
        headers = {"Authorization": f"Node {jws}"} | rest.pop("headers", {})
        async with httpx.AsyncClient(
            base_url=self.exchange.url, timeout=PATIENCE_SECONDS, verify=PLAIN
        ) as client:
            return await client.request(method, path, headers=headers, **rest)

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                frame = wire.decode_from_exchange(text)
                self.frames.append(frame)
                match frame:
                    case wire.Welcome(ack=ack) | wire.Ack(seq=ack):
                        self.ack = ack
                        self.seq = max(self.seq, ack)
                    case wire.Desired(leases):
                        self.leases = leases
                self._changed.set()
        self.closed = True
        self._changed.set()


def enrolment(secret: str, key: SigningKey, name: str, *, seal: SealKey | None = None) -> dict[str, str]:
    seal = seal or SealKey.generate()
    return {
        "secret": secret,
        "name": name,
        "sign_key": base64.urlsafe_b64encode(key.public_bytes).decode().rstrip("="),
        "seal_key": base64.urlsafe_b64encode(seal.public_bytes).decode().rstrip("="),
    }


def started(order: wire.LeaseOrder, *, at: int | None = None) -> RunStarted:
    return RunStarted(
        run=order.run,
        lease=order.lease,
        epoch=order.epoch,
        started_at=now_ms() if at is None else at,
        tier="bubblewrap",
        enforced=("network",),
    )


def chunk(order: wire.LeaseOrder, offset: int, data: bytes) -> LogChunk:
    return LogChunk(run=order.run, lease=order.lease, epoch=order.epoch, offset=offset, data=data)


def exited(
    order: wire.LeaseOrder, *, started_at: int | None, log_bytes: int = 0, **changes: Any
) -> RunExited:
    fields: dict[str, Any] = {
        "run": order.run,
        "lease": order.lease,
        "epoch": order.epoch,
        "started_at": started_at,
        "ended_at": now_ms(),
        "exit_code": 0,
        "cause": "exited",
        "detail": None,
        "cpu_seconds": 0.01,
        "memory_peak_bytes": 10**6,
        "energy_joules": 1.5,
        "energy_method": "model: test",
        "energy_uncertainty_percent": 70.0,
        "log_bytes": log_bytes,
    }
    return RunExited(**(fields | changes))


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    name: str
    id: str
    data: dict[str, Any]


async def events_of(
    client: httpx.AsyncClient,
    job: str,
    *,
    after: str | None = None,
    until: Callable[[Event], bool] | None = None,
) -> list[Event]:
    """The events of a job's stream, to its end, or to the first that `until` names."""
    headers = {"Last-Event-ID": after} if after else {}
    found: list[Event] = []
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                event = Event(fields["event"], fields["id"], msgspec.json.decode(fields["data"]))
                found.append(event)
                fields = {}
                if until is not None and until(event):
                    break
    return found


def now_ms() -> int:
    return time.time_ns() // 1_000_000
