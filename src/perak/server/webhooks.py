"""Tell owners: sign messages as Standard Webhooks has it, and send them until they arrive, or to a limit.

At least once: a message is claimed before it is sent and noted after; whoever dies between the two leaves it
to another replica. The receiver tells repetitions by `webhook-id`.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import ipaddress
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from perak.adapters.db.webhooks import Delivery, claim, forget_deliveries, settle
from perak.domain.addresses import is_public
from perak.domain.errors import InvalidInput
from perak.server import clock
from perak.server.logging import get_logger

if TYPE_CHECKING:
    import httpx

    from perak.server.services import Services

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that the specification gives secrets
SECRET_BYTES = 32
LOOK_SECONDS = 1.0
AT_ONCE_MAX = 8
"""Messages that one replica sends at the same time; the next ones are taken when these are done."""
SEND_SECONDS_MAX = 10.0
"""From the name's look-up to the end of the answer."""
CLAIM_SECONDS = 60.0
"""Well over SEND_SECONDS_MAX: after this a replica that took a message counts as dead."""
WAITS_SECONDS = (5, 60, 300, 1800, 7200, 18_000, 36_000)
"""After each failed attempt; then it is given up. Together some 18 hours: a night and a morning."""
ANSWER_BYTES_MAX = 4096
"""Nothing in an answer matters but its status; more than this is not read."""
ANSWER_CHARACTERS_SHOWN = 200
KEPT = timedelta(days=14)
FORGOTTEN_PER_ROUND = 1_000
FORGET_EVERY_ROUNDS = 600
GONE = 410
"""The receiver asks for no more of this message (Standard Webhooks)."""

Resolve = Callable[[str, int], Awaitable[list[str]]]

_log = get_logger(__name__)


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signature(secret: str, *, id: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature` of Standard Webhooks 1.0: HMAC-SHA256 over ``id.timestamp.body``."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def check_url(url: str, *, to_private: bool) -> None:
    """Refuse what can't be told apart from an attack on the operator's own network. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.username is not None or not url.isascii() or not url.isprintable():
        raise InvalidInput("a webhook's address is like https://example.org/perak, without a password in it")
    if parts.scheme != "https" and not (to_private and parts.scheme == "http"):
        raise InvalidInput("a webhook's address begins with https://, so that nobody reads on the way")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not to_private and not is_public(str(address)):
        raise InvalidInput(f"{host} is {PRIVATE}")


PRIVATE = (
    "no public address, and this exchange sends webhooks to public ones only; its operator may allow others "
    "with --webhooks-to-private"
)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@functools.cache
def _trust() -> ssl.SSLContext:
    """The authorities that receivers are trusted by, once: to load them holds everything up for 60 ms."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


class NotSent(Exception):
    """An attempt that failed; the text says how, for the owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends one message; says what was answered. `to_private`: to addresses of private networks too."""

    to_private: bool = False
    timeout_seconds: float = SEND_SECONDS_MAX
    resolve: Resolve = resolve

    async def send(self, url: str, *, secret: str, id: str, body: bytes) -> int:
        """The status that the receiver answered. Raises NotSent."""
        import httpx  # Here, as a start need not wait for it.

        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self._send(url, secret=secret, id=id, body=body)
        except TimeoutError:
            raise NotSent(f"no answer within {self.timeout_seconds:g} s") from None
        except InvalidInput as error:
            raise NotSent(error.detail) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise NotSent(f"{type(error).__name__}: {error}"[:ANSWER_CHARACTERS_SHOWN]) from None

    async def _send(self, url: str, *, secret: str, id: str, body: bytes) -> int:
        import httpx

        check_url(url, to_private=self.to_private)
        asked = httpx.URL(url)
        timestamp = int(clock.now().timestamp())
        headers = {
            "host": asked.netloc.decode(),
            "content-type": "application/json",
            "user-agent": "perak-webhooks",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, id=id, timestamp=timestamp, body=body),
        }
        # The address that was checked is the one that is dialled; Host and the TLS check keep the name.
        target = asked.copy_with(host=await self._address(asked))
        async with (
            httpx.AsyncClient(
                verify=_trust(), trust_env=False, follow_redirects=False, timeout=self.timeout_seconds
            ) as client,
            client.stream(
                "POST", target, content=body, headers=headers, extensions={"sni_hostname": asked.host}
            ) as answer,
        ):
            read = 0
            async for part in answer.aiter_raw():
                read += len(part)
                if read > ANSWER_BYTES_MAX:
                    break
            return answer.status_code

    async def _address(self, url: httpx.URL) -> str:
        addresses = await self.resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
        if not addresses:
            raise NotSent(f"{url.host} has no address")
        if not self.to_private and not all(is_public(address) for address in addresses):
            raise NotSent(f"{url.host} has {PRIVATE}")
        return addresses[0]


async def deliver(services: Services) -> None:
    """Send what is due, for ever."""
    rounds = 0
    while True:
        while await deliver_due(services, sender=services.webhook_sender) == AT_ONCE_MAX:
            pass
        if rounds % FORGET_EVERY_ROUNDS == 0:
            async with services.db.transaction() as tx:
                before = clock.now() - KEPT
                await forget_deliveries(tx.connection, before=before, limit=FORGOTTEN_PER_ROUND)
        rounds += 1
        await asyncio.sleep(LOOK_SECONDS)


async def deliver_due(services: Services, *, sender: Sender) -> int:
    """Send the messages that are due now, AT_ONCE_MAX at most; how many there were."""
    now = clock.now()
    async with services.db.transaction() as tx:
        until = now + timedelta(seconds=CLAIM_SECONDS)
        due = await claim(tx.connection, now=now, until=until, limit=AT_ONCE_MAX)
    await asyncio.gather(*(_deliver_one(services, sender, delivery) for delivery in due))
    return len(due)


async def _deliver_one(services: Services, sender: Sender, delivery: Delivery) -> None:
    secret = services.identity.vault.open(delivery.secret_sealed).decode()
    state, answer = "waiting", ""
    try:
        status = await sender.send(
            delivery.url, secret=secret, id=f"msg_{delivery.id}", body=delivery.body.encode()
        )
        answer = f"HTTP {status}"
        if 200 <= status < 300:
            state = "delivered"
        elif status == GONE:
            state = "failed"
    except NotSent as error:
        answer = str(error)
    now = clock.now()
    if state == "waiting" and delivery.attempts > len(WAITS_SECONDS):
        state = "failed"
    wait = WAITS_SECONDS[min(delivery.attempts, len(WAITS_SECONDS)) - 1]
    if state != "delivered":
        _log.info("a webhook was not delivered", delivery=delivery.id, state=state, answer=answer)
    async with services.db.transaction() as tx:
        next_at = now + timedelta(seconds=wait)
        await settle(tx.connection, delivery.id, state=state, answer=answer, next_at=next_at, now=now)
