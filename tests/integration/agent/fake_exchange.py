"""An exchange that speaks the agents' protocol and nothing else: records what comes, lists what it is told.

It stands in for the real one at the wire: real HTTP and a real WebSocket on loopback, real signatures.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from perak.domain.hardware.challenge import Challenge as DeviceChallenge
from perak.domain.report import Body, LogChunk, Report
from perak.wire.identity import Authority, issue_node_certificate, to_pem
from perak.wire.invite import Invite
from perak.wire.sealing import seal
from perak.wire.session import (
    HELLO_TYPE,
    PATH,
    REPORT_TYPE,
    REQUEST_TYPE,
    Ack,
    Beat,
    Certificate,
    Challenge,
    Desired,
    Hello,
    LeaseOrder,
    Prove,
    Refused,
    ReportFrame,
    Welcome,
    decode_from_agent,
    decode_hello,
    decode_report,
    decode_request,
    encode,
)
from perak.wire.signing import verify

NODE = "node-01k9f3v2m8q7zx4t5r@test"
SECRET = "opens once"


@dataclass
class FakeExchange:
    """`acknowledges`: whether reports are taken; `refusal` turns every session away."""

    url: str = ""
    authority: Authority = field(default_factory=lambda: Authority.create("test", now=datetime.now(UTC)))
    orders: dict[str, LeaseOrder] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    workdirs: dict[str, bytes] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By lease."""
    secrets_that_fail: int = 0
    secrets_asked: int = 0
    acknowledges: bool = True
    refusal: Refused | None = None
    ends_leases: bool = True
    sessions: int = 0
    ack: int = 0
    node_key: bytes = b""
    seal_key: bytes = b""
    beats: int = 0
    answers_beats: bool = True
    enrolments: int = 0
    outputs_that_fail: int = 0
    _socket: WebSocket | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def invite(self) -> str:
        return Invite(url=self.url, fingerprint=self.authority.fingerprint, secret=SECRET).encode()

    async def desire(self, *orders: LeaseOrder) -> None:
        self.orders |= {order.run: order for order in orders}
        await self.send_desired()

    async def forget(self, run: str) -> None:
        self.orders.pop(run, None)
        await self.send_desired()

    async def stop_run(self, run: str, cause: str) -> None:
        order = self.orders[run]
        fields = {name: getattr(order, name) for name in order.__struct_fields__}
        self.orders[run] = LeaseOrder(**(fields | {"wanted": "stop", "stop_cause": cause}))
        await self.send_desired()

    async def cut(self) -> None:
        """The network fails."""
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                await self._socket.close(1011)

    async def until(self, condition: Callable[[], Any], *, seconds: float = 20) -> Any:
        """Wait until something that comes in makes the condition true."""
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.05)
        return found

    def bodies(self, kind: type[Any], run: str | None = None) -> list[Any]:
        return [
            report.body
            for report in self.reports
            if isinstance(report.body, kind) and (run is None or report.body.run == run)
        ]

    def log_of(self, run: str) -> bytes:
        text = b""
        for chunk in self.bodies(LogChunk, run):
            assert chunk.offset <= len(text), "no gap"
            text = text[: chunk.offset] + chunk.data
        return text

    async def send_desired(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._send(self._socket, Desired(leases=tuple(self.orders.values())))

    async def session(self, socket: WebSocket) -> None:
        await socket.accept()
        self.sessions += 1
        if self.refusal is not None:
            await self._send(socket, self.refusal)
            await socket.close()
            return
        await self._send(socket, Challenge(nonce="n" * 20, exchange="test"))
        hello = decode_from_agent(await socket.receive_text())
        assert isinstance(hello, Hello)
        body = decode_hello(verify(hello.jws, self.node_key, typ=HELLO_TYPE))
        assert (body.nonce, body.node) == ("n" * 20, NODE)
        await self._send(socket, Welcome(ack=self.ack, at=int(time.time() * 1000), beat_interval_seconds=0.3))
        self._socket = socket
        await self.send_desired()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await self._on_frame(socket, await socket.receive_text())
        if self._socket is socket:
            self._socket = None

    async def _on_frame(self, socket: WebSocket, text: str) -> None:
        match decode_from_agent(text):
            case Beat() if self.answers_beats:
                self.beats += 1
                await self._send(socket, Beat(at=0))
            case ReportFrame(jws=jws) if self.acknowledges:
                report = decode_report(verify(jws, self.node_key, typ=REPORT_TYPE), jws=jws)
                if report.seq > self.ack:
                    assert report.seq == self.ack + 1, "in order, without gaps"
                    self.ack = report.seq
                    self.reports.append(report)
                    self.arrived_at.append(time.perf_counter())
                    await self._apply(report.body)
                await self._send(socket, Ack(seq=self.ack))
        self._changed.set()

    async def _apply(self, body: Body) -> None:
        if type(body).__name__ in ("RunExited", "RunRefused") and self.ends_leases:
            await self.forget(body.run)  # type: ignore[union-attr]

    async def send_certificate(self, chain_pem: str) -> None:
        assert self._socket is not None
        await self._send(self._socket, Certificate(chain=chain_pem))

    async def prove(self, challenge: DeviceChallenge) -> None:
        assert self._socket is not None
        await self._send(self._socket, Prove(challenge=challenge))

    def certificate(self) -> str:
        der = issue_node_certificate(
            self.authority, node_id=NODE, public_key=self.node_key, now=datetime.now(UTC)
        )
        return (to_pem(der) + self.authority.certificate_pem).decode()

    @staticmethod
    async def _send(socket: WebSocket, frame: Any) -> None:
        await socket.send_text(encode(frame).decode())

    async def exchange(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": "test",
                "version": "0",
                "currency": "USD",
                "fee_percent": 5,
                "ca_fingerprint": self.authority.fingerprint,
                "ca_certificate": self.authority.certificate_pem.decode(),
                "trust": "",
            }
        )

    async def enrol(self, request: Request) -> Response:
        body = await request.json()
        if body["secret"] != SECRET:
            return JSONResponse({"title": "no", "detail": "this invite was used"}, 403)
        self.enrolments += 1
        self.node_key = base64.urlsafe_b64decode(body["sign_key"] + "=")
        self.seal_key = base64.urlsafe_b64decode(body["seal_key"] + "=")
        return JSONResponse({"node": NODE, "exchange": "test", "certificate_chain": self.certificate()}, 201)

    async def workdir(self, request: Request) -> Response:
        self._check_signed(request)
        data = self.workdirs.get(request.path_params["lease"])
        return Response(status_code=404) if data is None else Response(data)

    async def give_secrets(self, request: Request) -> Response:
        self._check_signed(request)
        self.secrets_asked += 1
        lease = request.path_params["lease"]
        if self.secrets_that_fail > 0:
            self.secrets_that_fail -= 1
            return JSONResponse({"title": "not now"}, 503)
        if lease not in self.secrets:
            return JSONResponse({"title": "gone", "detail": "the secret TOKEN was removed"}, 404)
        envelope = seal(self.secrets[lease], to=self.seal_key, exchange="test", node=NODE, lease=lease)
        return JSONResponse({"sealed": envelope.sealed})

    async def put_outputs(self, request: Request) -> Response:
        self._check_signed(request)
        if self.outputs_that_fail > 0:
            self.outputs_that_fail -= 1
            return JSONResponse({"title": "not now"}, 503)
        data = await request.body()
        digest = request.path_params["digest"]
        assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.outputs[request.path_params["lease"]] = data
        return JSONResponse({}, 201)

    def _check_signed(self, request: Request) -> None:
        scheme, _, jws = request.headers["authorization"].partition(" ")
        assert scheme == "Node"
        signed = decode_request(verify(jws, self.node_key, typ=REQUEST_TYPE))
        assert (signed.node, signed.method, signed.path) == (NODE, request.method, request.url.path)
        assert abs(time.time() * 1000 - signed.at) < 10_000


@contextlib.asynccontextmanager
async def fake_exchange(
    *, tls: Any = None, exchange: FakeExchange | None = None
) -> AsyncIterator[FakeExchange]:
    """An exchange on loopback; `tls`: (certificate file, key file)."""
    exchange = exchange or FakeExchange()
    app = Starlette(
        routes=[
            Route("/v1/exchange", exchange.exchange),
            Route("/v1/enrol", exchange.enrol, methods=["POST"]),
            Route("/v1/node/leases/{lease}/workdir", exchange.workdir),
            Route("/v1/node/leases/{lease}/secrets", exchange.give_secrets),
            Route("/v1/node/leases/{lease}/outputs/{digest}", exchange.put_outputs, methods=["PUT"]),
            WebSocketRoute(PATH, exchange.session),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = listener.getsockname()[1]
    exchange.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_per_message_deflate=False,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield exchange
    finally:
        await exchange.cut()
        server.should_exit = True
        await task
        listener.close()
