"""The exchange's end of a node's session: who it is, what it reports, and what it should have.

A quiet session has no task and asks the database nothing: beats are answered as they come, one loop looks for
silent sessions and one for changed leases (`loops`), and Hellos that come together are answered together
(`greetings`). Work begins with a frame: a task proves the Hello, another applies reports while any wait.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from perak.adapters.db.views.orders import Mark
from perak.app.records import NodeRecord
from perak.app.sessions import SECOND_AGENT, WAIT, Greeting
from perak.domain.errors import Conflict, DomainError, InvalidInput, NotAuthenticated
from perak.domain.hardware.challenge import Challenge
from perak.server import clock
from perak.server.certificates import NodeCertificate, certified, node_certificate
from perak.server.evidence import EvidenceCheck
from perak.server.hello import Proven, Refused, clock_is_off, prove, tell_owner, to_ms
from perak.server.hub import DialHint
from perak.server.intake import REVOKED, Intake
from perak.server.logging import get_logger
from perak.server.presence import LiveSession
from perak.server.services import Services
from perak.server.sockets import AgentSocket
from perak.wire import session as wire

HELLO_SECONDS_MAX = 10.0
"""An agent signs and answers the challenge in milliseconds."""
SECOND_AGENT_NOTICE = (
    "a second agent with this node's key was refused: is its state folder in use on two machines? If you did "
    "not copy it, somebody has the key: `perak node revoke`, and enrol the machine again"
)

CLOSE_BAD_FRAME = 1008
CLOSE_SEND_AGAIN = 1013
"""Try again later (RFC 6455 registry): the agent dials again and sends from what is acknowledged."""

_log = get_logger(__name__)


class NodeSession:
    """One session, from the challenge to its end."""

    __slots__ = (
        "_applying",
        "_certificate_expires_at",
        "_early",
        "_ended",
        "_intake",
        "_late",
        "_live",
        "_nonce",
        "_paused",
        "_renewing",
        "_services",
        "_sign_key",
        "_socket",
        "node",
        "ordered",
    )

    def __init__(self, socket: AgentSocket, services: Services) -> None:
        self._socket = socket
        self._services = services
        self._nonce: str | None = None
        self._late: asyncio.TimerHandle | None = None
        self._live: LiveSession | None = None
        self._intake: Intake | None = None
        self._applying = self._paused = self._renewing = self._ended = False
        self._early: list[bytes] | None = None
        self._sign_key = b""
        self._certificate_expires_at: datetime
        self.node = ""
        self.ordered: Mark | None = None

    # What the socket calls

    def on_open(self) -> None:
        self._nonce = secrets.token_urlsafe(24)
        self._socket.send(wire.Challenge(nonce=self._nonce, exchange=self._services.identity.facts.name))
        no_hello = Refused("no Hello came in time; dial again", retry=True)
        self._late = asyncio.get_running_loop().call_later(HELLO_SECONDS_MAX, self._end, no_hello)

    def on_frame(self, data: bytes) -> None:
        if self._ended:
            return
        if self._early is not None:
            self._early.append(data)
            return
        try:
            frame = wire.decode_from_agent(data)
            if self._intake is None or self._live is None:
                self._on_hello(frame)
            else:
                self._on_frame(frame, self._live, self._intake)
        except Exception as error:
            self._end(error)

    def on_pong(self, seconds: float) -> None:
        if not self._ended and self.node:
            self._services.sightings.answered(self.node, seconds)

    def on_closed(self) -> None:
        self._leave()

    # What the replica's loops call

    def on_orders(self, leases: Sequence[wire.LeaseOrder], told: Mark) -> None:
        self.ordered = told
        self._socket.send(wire.Desired(leases=tuple(leases)))

    def on_revoked(self) -> None:
        self._end(Refused(REVOKED, retry=False))

    def on_dial(self, hint: DialHint) -> None:
        here = hint.url == self._services.tunnels.url
        dial = wire.Dial(
            tunnel=hint.tunnel,
            lease=hint.lease,
            run=hint.run,
            client=hint.client,
            url=None if here else hint.url,
        )
        self._socket.send(dial)

    def on_prove(self, challenge: Challenge) -> None:
        self._socket.send(wire.Prove(challenge=challenge))

    def hang_up(self) -> None:
        """End it without a word: the agent is silent, or has dialled again."""
        self._leave()
        self._socket.close(CLOSE_SEND_AGAIN)

    # Hello

    def _on_hello(self, frame: wire.FromAgent) -> None:
        if not isinstance(frame, wire.Hello) or self._nonce is None:
            raise InvalidInput("the first frame of an agent is Hello")
        nonce, self._nonce = self._nonce, None
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._early = []  # What comes before the welcome waits; no more than one read of it.
        self._socket.pause()
        self._socket.start(self._greet(frame, nonce))

    async def _greet(self, frame: wire.Hello, nonce: str) -> None:
        try:
            proven = await prove(self._services, frame, nonce=nonce)
            if not self._ended:
                await self._connect(proven)
        except Exception as error:
            self._end(error)
        early, self._early = self._early or [], None
        self._socket.resume()
        for data in early:
            self.on_frame(data)

    async def _connect(self, proven: Proven) -> None:
        """Open the session. Raises Refused where another agent of the node lives, here or elsewhere.

        Where packets vanished, the connection of an agent that was restarted meanwhile seems open for some
        beats. So a newcomer waits until the other one speaks, and is refused, or is silent for too long.
        """
        services, arrived_at, arrived = self._services, clock.now(), time.monotonic()
        while (node := await self._entered(proven.body, arrived_at)) is None:
            if services.presence.spoke_since(proven.body.node, arrived):
                await self._refuse_second(proven.body.node)
            await asyncio.sleep(services.periods.watch_seconds)
            if self._ended:
                return
        assert self._live is not None
        if self._ended:  # The agent left while it was greeted.
            services.greetings.release(node.id, self._live.number)
            return
        await self._welcome(node, proven.chain)
        _log.info("session opened", node=node.id, agent=proven.body.agent_version, ack=node.report_seq)

    async def _entered(self, body: wire.HelloBody, arrived_at: datetime) -> NodeRecord | None:
        """The node, with its session opened here; None: another agent has it and has not spoken since."""
        presence = self._services.presence
        live = presence.enter(body.node, body.agent_id, self.hang_up)
        if live is None:
            return None
        self._live, self.node = live, body.node
        greeting = Greeting(
            node=body.node,
            agent=body.agent_id,
            agent_version=body.agent_version,
            boot=body.boot_id,
            session=live.number,
            arrived_at=arrived_at,
        )
        try:
            return await self._services.greetings.connect(greeting)
        except NotAuthenticated as error:
            raise Refused(error.detail, retry=False) from None
        except Conflict as error:
            if error.code == SECOND_AGENT:
                await self._refuse_second(body.node)
            if error.code != WAIT:
                raise
        presence.leave(live)
        self._live = None
        return None

    async def _refuse_second(self, node: str) -> None:
        await tell_owner(self._services, node, SECOND_AGENT, SECOND_AGENT_NOTICE)
        raise Refused("another agent of this node has a session; stop it first", retry=True)

    async def _welcome(self, node: NodeRecord, shown: tuple[bytes, ...]) -> None:
        now = clock.now()
        self._sign_key, self._certificate_expires_at = node.sign_key, node.certificate_expires_at
        fresh = await self._certify_again(shown, now)
        self._intake = Intake(
            self._services,
            node=node.id,
            sign_key=node.sign_key,
            acknowledged=node.report_seq,
            evidence=EvidenceCheck(
                node=node.id,
                sign_key=node.sign_key,
                authority=self._services.identity.authority.fingerprint,
                shown=() if fresh else shown,
            ),
        )
        self._socket.send(
            wire.Welcome(
                ack=node.report_seq,
                at=to_ms(now),
                beat_interval_seconds=self._services.periods.beat_seconds,
                certificate=fresh,
            )
        )
        self._services.metrics.sessions.set(len(self._services.presence))
        if not self._ended:
            self._services.orders.enter(self)
            self._services.sightings.connected(self.node, self._socket.address)

    # The open session

    def _on_frame(self, frame: wire.FromAgent, live: LiveSession, intake: Intake) -> None:
        now = clock.now()
        self._services.presence.spoke(live, now)
        match frame:
            case wire.Beat(at=at):
                if reason := clock_is_off(at, now):
                    self._tell("clock", reason)
                    raise Refused(reason, retry=True)
                self._socket.send(wire.Beat(at=to_ms(now)))
                if self._services.sightings.beat(self.node):
                    self._socket.ping()
                self._renew_certificate(now)
            case wire.ReportFrame(jws):
                self._take(jws, intake)
            case wire.Hello():
                raise InvalidInput("Hello comes once, at the beginning")

    def _take(self, jws: str, intake: Intake) -> None:
        """Full, it stops the reading, and TCP stops the agent."""
        intake.add(jws)
        if intake.is_full and not self._paused:
            self._paused = True
            self._socket.pause()
        if not self._applying:
            self._applying = True
            self._socket.start(self._apply(intake))

    async def _apply(self, intake: Intake) -> None:
        try:
            while intake and not self._ended:
                await intake.apply_next()
                self._socket.send(wire.Ack(seq=intake.acknowledged))
                if self._paused and not intake.is_full:
                    self._paused = False
                    self._socket.resume()
        except Exception as error:
            self._end(error)
        finally:
            self._applying = False

    # Certificates

    async def _certify_again(self, shown: tuple[bytes, ...], now: datetime) -> str | None:
        """A chain for a node whose certificate ended while it was cut off; None: it did not.

        The node has just proven its key, which was never revoked: it was its own all the time. So the new
        certificate begins with the old one, and what was signed in between proves itself offline.
        """
        authority = self._services.identity.authority
        found = certified(authority, node=self.node, sign_key=self._sign_key, chain=shown)
        if found is not None:  # The last one that was made may never have reached the agent.
            self._certificate_expires_at = min(self._certificate_expires_at, found.not_after)
        if found is None or found.not_after > now:
            return None
        return (await self._certify(now, since=found.not_before)).chain_pem

    def _renew_certificate(self, now: datetime) -> None:
        before = timedelta(seconds=self._services.periods.renew_before_seconds)
        if self._certificate_expires_at - now <= before and not self._renewing:
            self._renewing = True
            self._socket.start(self._send_certificate(now))

    async def _send_certificate(self, now: datetime) -> None:
        try:
            self._socket.send(wire.Certificate(chain=(await self._certify(now)).chain_pem))
        except Exception as error:
            self._end(error)
        finally:
            self._renewing = False

    async def _certify(self, now: datetime, *, since: datetime | None = None) -> NodeCertificate:
        made = node_certificate(
            self._services.identity.authority,
            node=self.node,
            sign_key=self._sign_key,
            now=now,
            lifetime=timedelta(seconds=self._services.periods.certificate_seconds),
            since=since,
        )
        async with self._services.db.transaction() as tx:
            await tx.nodes.certified(self.node, chain=made.chain_pem, expires_at=made.expires_at)
        self._certificate_expires_at = made.expires_at
        return made

    # The end

    def _end(self, error: Exception) -> None:
        """Say why, and close."""
        if self._ended:
            return
        last: wire.Refused | None
        match error:
            case Refused():
                code, last = CLOSE_BAD_FRAME, wire.Refused(reason=str(error), retry=error.retry)
            case InvalidInput():
                _log.warning("a node's frame could not be understood", node=self.node, error=error.detail)
                if self._intake is not None:
                    self._tell("frame", f"its session was ended: {error.detail}"[:500])
                code, last = CLOSE_BAD_FRAME, wire.Refused(reason=error.detail, retry=True)
            case DomainError():
                code, last = CLOSE_SEND_AGAIN, wire.Refused(reason=error.detail, retry=True)
            case _:
                _log.error("a node's session failed; the agent dials again", node=self.node, exc_info=error)
                code, last = CLOSE_SEND_AGAIN, None
        if last is not None:
            self._socket.send(last)
        self._leave()
        self._socket.close(code)

    def _tell(self, subject: str, notice: str) -> None:
        """Tell the node's owner, while the session goes on, or ends."""

        async def told() -> None:
            try:
                await tell_owner(self._services, self.node, subject, notice)
            except Exception:
                _log.exception("a node's owner could not be told", node=self.node)

        self._socket.start(told())

    def _leave(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._late is not None:
            self._late.cancel()
        if self._live is None:
            return
        services = self._services
        services.orders.leave(self)
        services.sightings.left(self.node)
        services.presence.leave(self._live)
        if self._intake is not None:
            services.greetings.release(self.node, self._live.number)
            services.metrics.sessions.set(len(services.presence))
            _log.info("session closed", node=self.node)
