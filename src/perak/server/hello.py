"""Who dials: an agent proves its node's key by signing a nonce, and says what it is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from perak.app.refusals import tell_refusal
from perak.domain.errors import InvalidInput
from perak.domain.plausible import CLOCK_SKEW_SECONDS_MAX, NAME_CHARACTERS_MAX
from perak.domain.units import format_duration
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services
from perak.wire import session as wire
from perak.wire.signing import peek_header, peek_payload, verify

_log = get_logger(__name__)


class Refused(Exception):
    """The session is refused; `retry` says whether dialling again can help."""

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


@dataclass(frozen=True, slots=True)
class Proven:
    """What a Hello proved, and the agent's certificates: unproven, and perhaps expired."""

    body: wire.HelloBody
    chain: tuple[bytes, ...]


async def prove(services: Services, hello: wire.Hello, *, nonce: str) -> Proven:
    """Check a Hello that answers `nonce`. Raises Refused, InvalidInput.

    What counts is the key, which was enrolled and not revoked since.
    """
    body = _plain(wire.decode_hello(peek_payload(hello.jws)))  # Unproven: it names the key to check with.
    key = await services.greetings.key(body.node)
    if key is None:
        raise Refused(
            f"the node {body.node[:80]} is not enrolled here, or was revoked; enrol it", retry=False
        )
    proven = wire.decode_hello(verify(hello.jws, key, typ=wire.HELLO_TYPE))
    if not secrets.compare_digest(proven.nonce, nonce):
        raise InvalidInput("Hello answers another challenge")
    if proven.protocol != wire.PROTOCOL_VERSION:
        versions = f"this exchange speaks protocol {wire.PROTOCOL_VERSION}, the agent {proven.protocol}"
        await tell_owner(services, proven.node, "protocol", f"{versions}; update the older")
        raise Refused(f"{versions}; update the older", retry=False)
    if reason := clock_is_off(proven.at, clock.now()):
        await tell_owner(services, proven.node, "clock", reason)
        raise Refused(reason, retry=True)
    return Proven(_plain(proven), peek_header(hello.jws).chain)


def _plain(body: wire.HelloBody) -> wire.HelloBody:
    """The same, if its texts are short and printable; they are stored and shown. Raises InvalidInput."""
    for name in ("node", "agent_version", "boot_id", "agent_id"):
        text = getattr(body, name)
        if not (0 < len(text) <= NAME_CHARACTERS_MAX and text.isprintable()):
            raise InvalidInput(f"{name} in Hello has 1 to {NAME_CHARACTERS_MAX} printable characters")
    return body


def clock_is_off(at_ms: int, now: datetime) -> str | None:
    """What is wrong with a node's clock that says `at_ms`; None: nothing.

    Evidence that it signs would lie outside its certificate, and the receipt would not verify.
    """
    ahead = at_ms - to_ms(now)
    if abs(ahead) <= CLOCK_SKEW_SECONDS_MAX * 1000:
        return None
    # No clock is off by more than ten thousand years; Python refuses to write out huge integers.
    seconds = min(abs(ahead) // 1000, 10**12)
    return (
        f"this node's clock is {format_duration(seconds)} {'ahead of' if ahead > 0 else 'behind'} the "
        f"exchange's, and {CLOCK_SKEW_SECONDS_MAX} s are taken; set it (timedatectl set-ntp true), and the "
        "agent goes on by itself"
    )


def to_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


async def tell_owner(services: Services, node: str, subject: str, notice: str) -> None:
    """Tell the node's owner of a refusal, one of REFUSALS, and log it for the operator."""
    _log.warning("a node's owner is told", node=node, subject=subject, notice=notice)
    async with services.db.transaction() as tx:
        if (record := await tx.nodes.get(node)) is not None:
            await tell_refusal(tx, node=record, subject=subject, detail=notice, now=clock.now())
