"""The exchange's end of a node's session: who it is, what it reports, and what it should have.

Reports that arrive together are applied in one transaction and acknowledged once; what is acknowledged is
durable. The list of leases goes down whenever it changed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from starlette.websockets import WebSocket, WebSocketDisconnect

from perak.adapters.db.database import PgTransaction
from perak.adapters.db.views.market import live_leases, node_sign_key
from perak.app.effects import Effect
from perak.app.nodes import connect
from perak.app.records import NodeRecord
from perak.app.refusals import tell_refusal
from perak.app.reports import apply_reports, pass_over
from perak.domain.errors import Conflict, DomainError, InvalidInput, NotAuthenticated, Unavailable
from perak.domain.plausible import CLOCK_SKEW_SECONDS_MAX, NAME_CHARACTERS_MAX, Implausible
from perak.domain.report import Metered, Report, RunExited
from perak.domain.units import format_duration
from perak.server import clock
from perak.server.access import services_of
from perak.server.certificates import NodeCertificate, certified, node_certificate
from perak.server.evidence import EvidenceCheck
from perak.server.hub import Wakeup
from perak.server.logging import get_logger
from perak.server.orders import order
from perak.server.presence import LiveSession
from perak.server.services import Services
from perak.wire import session as wire
from perak.wire.signing import peek_header, peek_payload, verify

HELLO_SECONDS_MAX = 10.0
"""An agent signs and answers the challenge in milliseconds."""
BATCH_MAX = 64
BATCH_BYTES_MAX = 2 * 2**20
"""Reports in one transaction, and how much of them as signed text: some 16 full log chunks."""
QUEUED_BYTES_MAX = 2 * 2**20
"""Signed text of one node that waits here; an agent may send 30 MB ahead, which thousands must not."""
SECOND_AGENT = (
    "a second agent with this node's key was refused: is its state folder in use on two machines? If you did "
    "not copy it, somebody has the key: `perak node revoke`, and enrol the machine again"
)

CLOSE_BAD_FRAME = 1008
CLOSE_SEND_AGAIN = 1013
"""Try again later (RFC 6455 registry): the agent dials again and sends from what is acknowledged."""

REVOKED = "this node was revoked by its owner; enrol the machine again, with an empty --state-dir"

_log = get_logger(__name__)


async def node_session(socket: WebSocket) -> None:
    """Serve one session from the challenge to its end."""
    services = services_of(socket)
    await socket.accept()
    try:
        hello, chain = await _greet(socket, services)
        await _serve(socket, services, hello, chain)
    except WebSocketDisconnect:
        pass
    except _Refused as refused:
        await _close(socket, CLOSE_BAD_FRAME, wire.Refused(reason=str(refused), retry=refused.retry))
    except InvalidInput as error:
        _log.warning("a node's frame could not be understood", error=error.detail)
        await _close(socket, CLOSE_BAD_FRAME, wire.Refused(reason=error.detail, retry=True))
    except DomainError as error:
        await _close(socket, CLOSE_SEND_AGAIN, wire.Refused(reason=error.detail, retry=True))
    except Exception:
        _log.exception("a node's session failed; the agent dials again")
        await _close(socket, CLOSE_SEND_AGAIN)


class _Refused(Exception):
    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


async def _greet(socket: WebSocket, services: Services) -> tuple[wire.HelloBody, tuple[bytes, ...]]:
    """Challenge the agent; what it proved to be, and its certificates, unproven and perhaps expired.

    Raises _Refused, InvalidInput. What counts is the key, which was enrolled and not revoked since.
    """
    nonce = secrets.token_urlsafe(24)
    await _send(socket, wire.Challenge(nonce=nonce, exchange=services.identity.facts.name))
    try:
        async with asyncio.timeout(HELLO_SECONDS_MAX):
            frame = await _receive(socket)
    except TimeoutError:
        raise _Refused("no Hello came in time; dial again", retry=True) from None
    if not isinstance(frame, wire.Hello):
        raise InvalidInput("the first frame of an agent is Hello")
    body = _plain(wire.decode_hello(_unproven(frame.jws)))
    async with services.db.connection() as connection:
        key = await node_sign_key(connection, body.node)
    if key is None:
        raise _Refused(
            f"the node {body.node[:80]} is not enrolled here, or was revoked; enrol it", retry=False
        )
    proven = wire.decode_hello(verify(frame.jws, key, typ=wire.HELLO_TYPE))
    if not secrets.compare_digest(proven.nonce, nonce):
        raise InvalidInput("Hello answers another challenge")
    if proven.protocol != wire.PROTOCOL_VERSION:
        versions = f"this exchange speaks protocol {wire.PROTOCOL_VERSION}, the agent {proven.protocol}"
        await _tell_owner(services, proven.node, "protocol", f"{versions}; update the older")
        raise _Refused(f"{versions}; update the older", retry=False)
    if reason := _clock_is_off(proven.at, clock.now()):
        await _tell_owner(services, proven.node, "clock", reason)
        raise _Refused(reason, retry=True)
    return _plain(proven), peek_header(frame.jws).chain


def _plain(body: wire.HelloBody) -> wire.HelloBody:
    """The same, if its texts are short and printable; they are stored and shown. Raises InvalidInput."""
    for name in ("node", "agent_version", "boot_id", "agent_id"):
        text = getattr(body, name)
        if not (0 < len(text) <= NAME_CHARACTERS_MAX and text.isprintable()):
            raise InvalidInput(f"{name} in Hello has 1 to {NAME_CHARACTERS_MAX} printable characters")
    return body


def _clock_is_off(at_ms: int, now: datetime) -> str | None:
    """What is wrong with a node's clock that says `at_ms`; None: nothing.

    Evidence that it signs would lie outside its certificate, and the receipt would not verify.
    """
    ahead = at_ms - _ms(now)
    if abs(ahead) <= CLOCK_SKEW_SECONDS_MAX * 1000:
        return None
    # No clock is off by more than ten thousand years; Python refuses to write out huge integers.
    seconds = min(abs(ahead) // 1000, 10**12)
    return (
        f"this node's clock is {format_duration(seconds)} {'ahead of' if ahead > 0 else 'behind'} the "
        f"exchange's, and {CLOCK_SKEW_SECONDS_MAX} s are taken; set it (timedatectl set-ntp true), and the "
        "agent goes on by itself"
    )


async def _tell_owner(services: Services, node: str, subject: str, notice: str) -> None:
    """Tell the node's owner of a refusal, one of REFUSALS, and log it for the operator."""
    _log.warning("a node's owner is told", node=node, subject=subject, notice=notice)
    async with services.db.transaction() as tx:
        if (record := await tx.nodes.get(node)) is not None:
            await tell_refusal(tx, node=record, subject=subject, detail=notice, now=clock.now())


def _unproven(jws: str) -> bytes:
    """The payload before any check: it names the node whose key to check with."""
    return peek_payload(jws)


async def _serve(
    socket: WebSocket, services: Services, hello: wire.HelloBody, chain: tuple[bytes, ...]
) -> None:
    live = await _enter(services, hello)
    services.metrics.sessions.set(len(services.presence))
    log = _log.bind(node=hello.node)
    try:
        try:
            node = await services.commit(lambda tx: _connect(tx, hello))
        except NotAuthenticated as error:
            raise _Refused(error.detail, retry=False) from None
        log.info("session opened", agent=hello.agent_version, ack=node.report_seq)
        try:
            await _Session(socket, services, live, node, chain).run()
        except InvalidInput as error:
            await _tell_owner(services, hello.node, "frame", f"its session was ended: {error.detail}"[:500])
            raise
    finally:
        services.presence.leave(live)
        services.metrics.sessions.set(len(services.presence))
        log.info("session closed")


async def _enter(services: Services, hello: wire.HelloBody) -> LiveSession:
    """A session for this agent. Raises _Refused where another one of the node lives.

    Where packets vanished, the connection of an agent that was restarted meanwhile seems open here for some
    beats. So a newcomer waits until the other one speaks, and is refused, or is silent for too long.
    """
    arrived_at = time.monotonic()
    while (live := services.presence.enter(hello.node, hello.agent_id)) is None:
        if services.presence.spoke_since(hello.node, arrived_at):
            await _tell_owner(services, hello.node, "second_agent", SECOND_AGENT)
            raise _Refused("another agent of this node has a session; stop it first", retry=True)
        await asyncio.sleep(services.periods.watch_seconds)
    return live


async def _connect(tx: PgTransaction, hello: wire.HelloBody) -> tuple[NodeRecord, Sequence[Effect]]:
    return await connect(
        tx,
        node_id=hello.node,
        agent_id=hello.agent_id,
        agent_version=hello.agent_version,
        boot_id=hello.boot_id,
        now=clock.now(),
    )


class _Session:
    """An open session: one task reads, one applies reports, one sends the list of leases."""

    def __init__(
        self,
        socket: WebSocket,
        services: Services,
        live: LiveSession,
        node: NodeRecord,
        chain: tuple[bytes, ...],
    ) -> None:
        self._socket = socket
        self._services = services
        self._live = live
        self._node = node
        self._acknowledged = node.report_seq
        self._shown = chain
        self._certificate_expires_at = node.certificate_expires_at
        self._evidence = self._evidence_check(shown=chain)
        self._reports: asyncio.Queue[str] = asyncio.Queue(wire.REPORTS_UNACKNOWLEDGED_MAX)
        self._queued_bytes = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Until the connection ends, or something in it fails."""
        beat = self._services.periods.beat_seconds
        now = clock.now()
        certificate = await self._certify_again(now)
        welcome = wire.Welcome(
            ack=self._acknowledged, at=_ms(now), beat_interval_seconds=beat, certificate=certificate
        )
        await _send(self._socket, welcome)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._apply())
                with self._services.hub.node(self._node.id) as wakeup:
                    tasks.create_task(self._send_desired(wakeup))
                    tasks.create_task(self._watch())
                    await asyncio.Future()
        except BaseExceptionGroup as group:  # The first failure ended the others.
            raise _first(group) from None

    async def _read(self) -> None:
        while True:
            frame = await _receive(self._socket)
            now = clock.now()
            self._services.presence.spoke(self._live, now)
            match frame:
                case wire.ReportFrame(jws):
                    await self._queue(jws)
                case wire.Beat(at=at):
                    if reason := _clock_is_off(at, now):
                        await _tell_owner(self._services, self._node.id, "clock", reason)
                        raise _Refused(reason, retry=True)
                    await _send(self._socket, wire.Beat(at=_ms(now)))
                    await self._renew_certificate(now)
                case wire.Hello():
                    raise InvalidInput("Hello comes once, at the beginning")

    async def _queue(self, jws: str) -> None:
        """Full, it stops the reading, and TCP stops the agent."""
        while self._queued_bytes > QUEUED_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._queued_bytes += len(jws)
        await self._reports.put(jws)

    def _taken(self, jws: str) -> str:
        self._queued_bytes -= len(jws)
        self._room.set()
        return jws

    async def _apply(self) -> None:
        """Apply reports in the order of their arrival, those that wait together in one transaction."""
        while True:
            batch = [self._decoded(self._taken(await self._reports.get()))]
            size = len(batch[0].jws)
            while len(batch) < BATCH_MAX and size < BATCH_BYTES_MAX and not self._reports.empty():
                batch.append(self._decoded(self._taken(self._reports.get_nowait())))
                size += len(batch[-1].jws)
            started_at = time.perf_counter()
            try:
                if any(self._fault(report) for report in batch):
                    seq = await self._apply_singly(batch)
                else:
                    seq = await self._apply_batch(batch)
            except Conflict as error:
                if error.code == "report_gap":
                    raise
                seq = await self._apply_singly(batch)
            except NotAuthenticated:
                raise _Refused(REVOKED, retry=False) from None
            except Unavailable:
                raise
            except DomainError:
                seq = await self._apply_singly(batch)
            self._count(batch, seconds=time.perf_counter() - started_at)
            if seq > self._acknowledged:
                self._acknowledged = seq
            await _send(self._socket, wire.Ack(seq=self._acknowledged))

    def _decoded(self, jws: str) -> Report:
        """The report, its signature checked. Raises InvalidInput."""
        report = wire.decode_report(verify(jws, self._node.sign_key, typ=wire.REPORT_TYPE), jws=jws)
        if report.node != self._node.id:
            raise InvalidInput(f"{self._node.id} signed a report of {report.node[:80]}")
        return report

    def _fault(self, report: Report) -> str | None:
        """Why the report can't be evidence on a receipt, which is verified by nothing else; None: it can."""
        if not isinstance(report.body, Metered | RunExited):
            return None
        try:
            self._evidence.check(report)
        except InvalidInput as error:
            return f"its certificates prove nothing: {error.detail}"
        return None

    async def _apply_batch(self, reports: Sequence[Report]) -> int:
        return await self._services.commit(
            lambda tx: apply_reports(
                tx, node_id=self._node.id, reports=reports, context=self._services.context, now=clock.now()
            )
        )

    async def _apply_singly(self, reports: Sequence[Report]) -> int:
        """One by one: a report that is refused is passed over with a line in the log, and the rest go on.

        Only an expected refusal is passed over. An error of ours ends the session instead: the evidence
        stays in the agent's journal.
        """
        seq = self._acknowledged
        for report in reports:
            fault = self._fault(report)
            try:
                if fault:
                    raise Implausible(fault)
                seq = max(seq, await self._apply_batch([report]))
            except DomainError as error:
                if error.code == "report_gap" or isinstance(error, Unavailable):
                    raise
                self._services.metrics.refused_reports.inc()
                _log.error(
                    "a report was refused and passed over",
                    node=self._node.id, seq=report.seq, type=type(report.body).__name__, error=error.detail,
                )  # fmt: skip
                seq = max(seq, await self._pass_over(report, "evidence" if fault else "report", error.detail))
        return seq

    async def _pass_over(self, report: Report, subject: str, reason: str) -> int:
        return await self._services.commit(
            lambda tx: pass_over(
                tx, node_id=self._node.id, report=report, subject=subject, reason=reason,
                context=self._services.context, now=clock.now(),
            )
        )  # fmt: skip

    def _count(self, reports: Sequence[Report], *, seconds: float) -> None:
        for report in reports:
            self._services.metrics.reports.labels(type(report.body).__name__).inc()
            if isinstance(report.body, RunExited):
                self._services.metrics.settle_seconds.observe(seconds)

    async def _send_desired(self, wakeup: Wakeup) -> None:
        """The whole list, at first and whenever it changed; hints may be lost, so it is read at beats too."""
        sent: wire.Desired | None = None
        while True:
            wakeup.clear()
            async with self._services.db.connection() as connection:
                leases = await live_leases(connection, self._node.id)
            desired = wire.Desired(leases=tuple(order(lease) for lease in leases))
            if desired != sent:
                await _send(self._socket, desired)
                sent = desired
            if await wakeup.wait(self._services.periods.beat_seconds):
                await self._check_not_revoked()

    async def _check_not_revoked(self) -> None:
        """A hint came; it may be that the node was revoked. Should one be lost, the next report tells."""
        async with self._services.db.connection() as connection:
            if await node_sign_key(connection, self._node.id) is None:
                raise _Refused(REVOKED, retry=False)

    async def _watch(self) -> None:
        """End the session when the agent is silent, dialled again, or the exchange stops."""
        while not self._live.replaced and not self._services.stopping.is_set():
            if self._live.is_silent(self._services.periods.hang_up_after_seconds):
                _log.warning("a session is silent and is closed", node=self._node.id)
                break
            await asyncio.sleep(self._services.periods.watch_seconds)
        raise WebSocketDisconnect(CLOSE_SEND_AGAIN)

    async def _certify_again(self, now: datetime) -> str | None:
        """A chain for a node whose certificate ended while it was cut off; None: it did not.

        The node has just proven its key, which was never revoked: it was its own all the time. So the new
        certificate begins with the old one, and what was signed in between proves itself offline.
        """
        found = certified(
            self._services.identity.authority,
            node=self._node.id,
            sign_key=self._node.sign_key,
            chain=self._shown,
        )
        if found is not None:  # The last one that was made may never have reached the agent.
            self._certificate_expires_at = min(self._certificate_expires_at, found.not_after)
        if found is None or found.not_after > now:
            return None
        made = await self._certify(now, since=found.not_before)
        self._evidence = self._evidence_check(shown=())
        return made.chain_pem

    async def _renew_certificate(self, now: datetime) -> None:
        before = timedelta(seconds=self._services.periods.renew_before_seconds)
        if self._certificate_expires_at - now <= before:
            made = await self._certify(now)
            await _send(self._socket, wire.Certificate(chain=made.chain_pem))

    async def _certify(self, now: datetime, *, since: datetime | None = None) -> NodeCertificate:
        made = node_certificate(
            self._services.identity.authority,
            node=self._node.id,
            sign_key=self._node.sign_key,
            now=now,
            lifetime=timedelta(seconds=self._services.periods.certificate_seconds),
            since=since,
        )
        async with self._services.db.transaction() as tx:
            await tx.nodes.certified(self._node.id, chain=made.chain_pem, expires_at=made.expires_at)
        self._certificate_expires_at = made.expires_at
        return made

    def _evidence_check(self, *, shown: tuple[bytes, ...]) -> EvidenceCheck:
        return EvidenceCheck(
            node=self._node.id,
            sign_key=self._node.sign_key,
            authority=self._services.identity.authority.fingerprint,
            shown=shown,
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


async def _receive(socket: WebSocket) -> wire.FromAgent:
    """The next frame. Raises WebSocketDisconnect, InvalidInput."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text: str | bytes | None = message.get("text")
    return wire.decode_from_agent(text if text is not None else message["bytes"])


async def _send(socket: WebSocket, frame: wire.FromExchange) -> None:
    await socket.send_text(wire.encode(frame).decode())


async def _close(socket: WebSocket, code: int, last: wire.FromExchange | None = None) -> None:
    """Say why and close; the agent may be gone already."""
    try:
        if last is not None:
            await _send(socket, last)
        await socket.close(code)
    except (RuntimeError, WebSocketDisconnect):
        _log.debug("the agent was gone before the session was closed")


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
