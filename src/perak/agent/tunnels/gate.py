"""The gate: the process that holds this node's ends of tunnels. The agent starts it for the first one.

It reads the exchange's orders, a JSON object a line, from its standard input, and ends with it; or by itself,
when it was idle for a while, as what it has loaded takes some 30 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from perak.agent import identity as identities
from perak.agent.identity import CHAIN, SIGN_KEY, Identity
from perak.agent.tunnels.inside import CantEnter
from perak.agent.tunnels.services import serve
from perak.domain.errors import DomainError
from perak.wire.session import Dial
from perak.wire.tunnel import (
    ANSWER,
    MESSAGE_BYTES_MAX,
    NODE_PATH,
    REQUEST,
    Channel,
    TunnelClosed,
    check_client,
    keep_buffers,
    node_context,
)

log = logging.getLogger(__name__)

IDLE_SECONDS = 300.0
PING_SECONDS = 30.0
"""Keeps the node's router from forgetting a quiet connection. A missing answer is no sign: the exchange reads
on only when the client does."""
OPEN_SECONDS = 15.0
REMEMBERED_MAX = 1024
"""Tunnels that were dialled already; the exchange repeats an order until it sees us."""


class Agent(Protocol):
    """What starts and feeds the gate."""

    def dial(self, dial: Dial) -> None: ...


async def run(state_dir: Path, url: str) -> None:
    """Serve tunnels until the standard input ends, or nothing was to do for IDLE_SECONDS."""
    identity = identities.load(state_dir, url=url)
    assert identity is not None, "the agent that started this is a node"
    keep_buffers()
    orders = await _orders()
    tasks: set[asyncio.Task[None]] = set()
    seen: dict[str, None] = {}
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                line = await orders.readline()
        except TimeoutError:
            if tasks:
                continue
            return
        if not line:
            break
        dial = msgspec.json.decode(line, type=Dial)
        if dial.tunnel in seen:
            continue
        seen[dial.tunnel] = None
        if len(seen) > REMEMBERED_MAX:
            del seen[next(iter(seen))]
        task = asyncio.create_task(_tunnel(dial, identity))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _orders() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _tunnel(dial: Dial, identity: Identity) -> None:
    """One tunnel from dialling to its end; what goes wrong ends it alone."""
    try:
        async with _dialled(dial, identity) as socket:
            context = node_context(
                chain_file=str(identity.state_dir / CHAIN),
                key_file=str(identity.state_dir / SIGN_KEY),
                client_certificate=dial.client,
            )
            channel = Channel(_Messages(socket), context, server_side=True)
            check_client(await channel.handshake(), client_certificate=dial.client)
            await _answer(channel, identity.state_dir / "runs" / dial.run)
    except TunnelClosed as error:
        log.debug("tunnel %s: %s", dial.tunnel[:8], error)
    except (OSError, TimeoutError, WebSocketException, DomainError) as error:
        log.info("the tunnel %s could not be served: %s", dial.tunnel[:8], error)
    except Exception:
        log.exception("the tunnel %s failed", dial.tunnel[:8])


async def _answer(channel: Channel, run_folder: Path) -> None:
    request = await channel.receive_json(REQUEST)
    try:
        await serve(channel, request, run_folder)
    except CantEnter as error:
        await channel.send_json(ANSWER, {"error": error.detail, "exit_code": error.exit_code})
    except DomainError as error:
        if isinstance(error, TunnelClosed):
            raise
        await channel.send_json(ANSWER, {"error": error.detail})


@contextlib.asynccontextmanager
async def _dialled(dial: Dial, identity: Identity):  # type: ignore[no-untyped-def]
    path = NODE_PATH.format(tunnel=dial.tunnel)
    url = (dial.url or identity.url).rstrip("/")
    authorization = identity.sign_request("GET", path, at=time.time_ns() // 1_000_000)
    async with connect(
        "ws" + url.removeprefix("http") + path,
        ssl=identity.tls if url.startswith("https") else None,
        additional_headers={"Authorization": authorization},
        compression=None,
        max_size=MESSAGE_BYTES_MAX,
        max_queue=4,
        ping_interval=PING_SECONDS,
        ping_timeout=None,
        open_timeout=OPEN_SECONDS,
        close_timeout=1,
        proxy=None,
    ) as socket:
        yield socket


class _Messages:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def recv(self) -> bytes:
        try:
            message = await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise TunnelClosed(error.rcvd.reason if error.rcvd else "the connection was cut") from None
        assert isinstance(message, bytes)
        return message

    async def send(self, message: bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise TunnelClosed(error.rcvd.reason if error.rcvd else "the connection was cut") from None
