"""The one conversation between a node's agent and the exchange, over a WebSocket that the agent opens.

::

    exchange                                   agent
       | -- Challenge(nonce) ------------------> |
       | <- Hello(jws over nonce, node, ...) --- |
       | -- Welcome(ack, beat interval) -------> |      or Refused, and the connection closes
       | <- Report(jws) ... -------------------- |      numbered, signed; kept by the agent until acknowledged
       | -- Ack(seq) --------------------------> |      every report up to seq is durable
       | -- Desired(leases) -------------------> |      the whole list, whenever it changed: level-triggered
       | <- Beat ------------------------------- |      every 5 s
       | -- Beat ------------------------------> |      its answer
       | -- Dial(tunnel) ----------------------> |      a renter waits for a terminal: see `perak.wire.tunnel`
       | -- Prove(challenge) ------------------> |      show that these devices are several, now
       | -- Certificate(chain) ----------------> |      a fresh one, when half of the old one's life is over

Frames are JSON texts. A lost, repeated or reordered frame is harmless: reports are numbered, and `Desired`
always says everything.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from perak.domain.errors import InvalidInput
from perak.domain.hardware import challenge as devices
from perak.domain.report import REPORT_TYPES, Body, Report
from perak.wire.signing import REPORT_TYP

_T = TypeVar("_T")

PATH = "/v1/node/session"
PROTOCOL_VERSION = 1
BEAT_INTERVAL_SECONDS = 5.0
"""Agents beat this often; silence of three beats makes a node suspected (design)."""
FRAME_BYTES_MAX = 2**20
"""Larger than any frame that we make: a full log chunk is in base64 twice; Desired lists some 100 leases."""
LOG_CHUNK_BYTES_MAX = 64 * 1024
"""In base64 it stays under the largest payload that a signature may cover."""
REPORTS_UNACKNOWLEDGED_MAX = 256
"""An agent sends at most this many reports ahead of the acknowledgement: bounds both ends' memory."""

HELLO_TYPE = "perak-hello+jwt"
REPORT_TYPE = REPORT_TYP
REQUEST_TYPE = "perak-node-request+jwt"
"""`typ` of the three JWS that a node signs, so that none can stand in for another."""
REQUEST_SECONDS_MAX = 300
"""How old the signature of a node's HTTP request may be."""


class Challenge(msgspec.Struct, tag="challenge", frozen=True):
    """The first frame: the agent signs this nonce to show that it holds the node's key."""

    nonce: str
    exchange: str
    protocol: int = PROTOCOL_VERSION


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """The agent's answer; `jws` is of type HELLO_TYPE over a HelloBody."""

    jws: str


class HelloBody(msgspec.Struct, frozen=True):
    """What Hello signs. `boot_id` changes with every boot, `agent_id` with every start of the agent."""

    nonce: str
    node: str
    agent_version: str
    boot_id: str
    agent_id: str
    at: int
    protocol: int = PROTOCOL_VERSION


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """The session is open. `ack`: the last report that the exchange has applied.

    `certificate` (a chain as in `Certificate`): for an agent whose own ended while it was cut off. It covers
    that time too; what the agent signed meanwhile is signed anew with it before it is sent.
    """

    ack: int
    at: int
    beat_interval_seconds: float = BEAT_INTERVAL_SECONDS
    certificate: str | None = None


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The session is refused; `retry` says whether trying again later can help."""

    reason: str
    retry: bool


class Beat(msgspec.Struct, tag="beat", frozen=True):
    """Alive; sent by the agent and answered by the exchange. `at`: the sender's Unix milliseconds."""

    at: int


class ReportFrame(msgspec.Struct, tag="report", frozen=True):
    """A signed report; `jws` is of type REPORT_TYPE over a ReportPayload."""

    jws: str


class Ack(msgspec.Struct, tag="ack", frozen=True):
    """Every report up to `seq` is applied and durable; the agent may forget them."""

    seq: int


class SecretOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that the run is to be given, by name; its value is fetched sealed to the node."""

    name: str
    kind: str


class InputOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Data to mount read-only at `path` in the work folder; `digest` is None only for s3.

    `credentials` names the secret, ``key id:secret key``, with which an object of s3 is read.
    """

    path: str
    url: str
    digest: str | None = None
    credentials: str | None = None


class LeaseOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One lease that the node should have now. `wanted` "stop": end the run, for the cause given.

    `devices`: UUIDs of the GPUs that belong to this lease alone. `image`: ``name@sha256:...``, its closed
    registry's secret in `image_credentials`; its own program is run where `command` is None. `tier`: the
    sandbox to use, None the node's default.
    `joules_max`: what the run may have drawn in all, so that its job keeps its max_carbon: the node ends it
    before that by itself while it is cut off; None: no bound.
    """

    lease: str
    run: str
    job: str
    epoch: int
    wanted: Literal["run", "stop"]
    stop_cause: str | None = None
    name: str
    command: str | None
    setup: str | None = None
    env: dict[str, str] = {}
    python_version: str | None = None
    python_packages: tuple[str, ...] = ()
    workdir_digest: str | None = None
    outputs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    shm_bytes: int
    max_duration_seconds: int
    image: str | None = None
    image_credentials: str | None = None
    secrets: tuple[SecretOrder, ...] = ()
    inputs: tuple[InputOrder, ...] = ()
    network_allow: tuple[str, ...] = ()
    tier: str | None = None
    encrypt_to: str | None = None
    joules_max: float | None = None


class Desired(msgspec.Struct, tag="desired", frozen=True):
    """Every lease that this node should have; one that it has and that isn't named here is to be ended."""

    leases: tuple[LeaseOrder, ...]


class Certificate(msgspec.Struct, tag="certificate", frozen=True):
    """A fresh certificate chain (PEM, node first) for the node's key."""

    chain: str


class Dial(msgspec.Struct, tag="dial", frozen=True, kw_only=True):
    """Open the node's end of a tunnel to this run, and let in whoever has the key of `client` (PEM).

    `url`: the replica where the tunnel waits; None: where the session is. May come more than once.
    """

    tunnel: str
    lease: str
    run: str
    client: str
    url: str | None = None


class Prove(msgspec.Struct, tag="prove", frozen=True, kw_only=True):
    """Put these devices to work at once, seeded by this nonce, and report a `Proved` of each.

    Sent only to a node that has reported inspections: an older agent would not know the frame.
    """

    challenge: devices.Challenge


FromExchange = Challenge | Welcome | Refused | Beat | Ack | Desired | Certificate | Dial | Prove
FromAgent = Hello | Beat | ReportFrame

_encoder = msgspec.json.Encoder()
_from_exchange: msgspec.json.Decoder[FromExchange] = msgspec.json.Decoder(FromExchange)
_from_agent: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_hello_body = msgspec.json.Decoder(HelloBody)


class ReportPayload(msgspec.Struct, frozen=True):
    """What a report signs; `body` is one of REPORT_TYPES, named by `type`."""

    seq: int
    node: str
    at: int
    type: str
    body: msgspec.Raw


class RequestPayload(msgspec.Struct, frozen=True):
    """What a node signs for an HTTP request (``Authorization: Node <jws>``)."""

    node: str
    method: str
    path: str
    at: int


_report_payload = msgspec.json.Decoder(ReportPayload)
_request_payload = msgspec.json.Decoder(RequestPayload)


def encode(frame: FromExchange | FromAgent | HelloBody | RequestPayload) -> bytes:
    return _encoder.encode(frame)


def decode_from_exchange(text: str | bytes) -> FromExchange:
    """A frame of the exchange. Raises InvalidInput."""
    return _decoded(_from_exchange, text)


def decode_from_agent(text: str | bytes) -> FromAgent:
    """A frame of an agent. Raises InvalidInput."""
    return _decoded(_from_agent, text)


def decode_hello(payload: bytes) -> HelloBody:
    return _decoded(_hello_body, payload)


def decode_request(payload: bytes) -> RequestPayload:
    return _decoded(_request_payload, payload)


def encode_report(*, seq: int, node: str, at: int, body: Body) -> bytes:
    """The payload bytes to sign for a report."""
    (name,) = [n for n, t in REPORT_TYPES.items() if isinstance(body, t)]
    raw = msgspec.Raw(_encoder.encode(body))
    return _encoder.encode(ReportPayload(seq=seq, node=node, at=at, type=name, body=raw))


def decode_report(payload: bytes, *, jws: str) -> Report:
    """The report in a verified payload. Raises InvalidInput for anything that isn't one."""
    envelope = _decoded(_report_payload, payload)
    kind = REPORT_TYPES.get(envelope.type)
    if kind is None:
        raise InvalidInput(f"a report of the unknown type {envelope.type[:40]!r}")
    body: Any = _decoded(msgspec.json.Decoder(kind), bytes(envelope.body))
    return Report(seq=envelope.seq, node=envelope.node, at=envelope.at, body=body, jws=jws)


def _decoded(decoder: msgspec.json.Decoder[_T], text: str | bytes) -> _T:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"not a frame of this protocol: {error}") from None
    except UnicodeDecodeError:
        raise InvalidInput("not a frame of this protocol: it is not UTF-8") from None
