"""The client's end of tunnels: a channel to a running job that the exchange relays and can't read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from perak.client.aio import AsyncClient
from perak.client.errors import ExchangeUnreachable, PerakError
from perak.client.transport import ssl_context
from perak.domain.errors import DomainError
from perak.wire.tunnel import (
    ANSWER,
    MESSAGE_BYTES_MAX,
    REQUEST,
    Channel,
    ClientKey,
    TunnelClosed,
    check_node,
)

OPEN_SECONDS = 15.0
CLOSE_SECONDS = 1.0
"""To say good-bye; the exchange sees the connection's end as well."""
PING_SECONDS = 30.0
"""Keeps routers on the way from forgetting a quiet connection; a missing answer is no sign."""


class TunnelRefused(PerakError):
    """The node could not do what was asked; `exit_code` is a shell's for it, if it has one."""

    code = "tunnel_refused"

    def __init__(self, detail: str, *, exit_code: int | None = None) -> None:
        super().__init__(detail)
        self.exit_code = exit_code


class TunnelLost(PerakError):
    """The tunnel ended before what went through it had."""

    code = "tunnel_lost"


class Tunnels:
    """Tunnels to one job. The exchange's authority is asked for once."""

    def __init__(self, client: AsyncClient, job: str) -> None:
        self._client = client
        self.job = job
        self._authority: str | None = None

    @contextlib.asynccontextmanager
    async def open(self, request: dict[str, Any]) -> AsyncIterator[Channel]:
        """A channel on which the node has agreed to `request`. Raises PerakError."""
        key = ClientKey.make()
        authority = await self._authority_pem()
        asked = await self._client.open_tunnel(self.job, certificate=key.certificate)
        url = (asked.replica or self._client.target.url).rstrip("/") + asked.path
        try:
            async with self._socket(url) as messages:
                channel = Channel(messages, key.context(authority_pem=authority), server_side=False)
                check_node(await channel.handshake(), authority_pem=authority, node=asked.node)
                await channel.send_json(REQUEST, request)
                answer = await channel.receive_json(ANSWER)
                if "error" in answer:
                    raise TunnelRefused(str(answer["error"]), exit_code=answer.get("exit_code"))
                yield channel
        except TunnelClosed as error:
            raise TunnelLost(f"The tunnel to {self.job} ended: {error.detail}.") from None
        except DomainError as error:
            raise TunnelRefused(error.detail) from None

    @contextlib.asynccontextmanager
    async def _socket(self, url: str) -> AsyncIterator[_Messages]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        target = self._client.target
        try:
            socket = await connect(
                "ws" + url.removeprefix("http"),
                ssl=ssl_context(target) if url.startswith("https") else None,
                additional_headers={"Authorization": f"Bearer {target.api_key}"},
                compression=None,
                max_size=MESSAGE_BYTES_MAX,
                max_queue=4,
                ping_interval=PING_SECONDS,
                ping_timeout=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=None if target.is_loopback else True,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ExchangeUnreachable(target.url, str(error) or type(error).__name__) from None
        try:
            yield _Messages(socket)
        finally:
            # A close frame goes after all that waits to be sent, which may be for as long as nobody reads it.
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.close()
            except TimeoutError:
                socket.transport.abort()

    async def _authority_pem(self) -> str:
        """What was pinned by `perak login`; without that, what the exchange says of itself."""
        if self._authority is None:
            pinned = self._client.target.ca_certificate
            self._authority = pinned or (await self._client.exchange()).ca_certificate
        return self._authority


class _Messages:
    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def recv(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            message: bytes = await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise _closed(error) from None
        return message

    async def send(self, message: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise _closed(error) from None


def _closed(error: Any) -> TunnelClosed:
    return TunnelClosed((error.rcvd.reason if error.rcvd else "") or "the connection was cut")
