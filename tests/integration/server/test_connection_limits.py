"""More connections than one address may have are refused with the reason, and cost nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from server_world import ScriptedNode, running_exchange

from perak.server.connections import ConnectionLimits

PER_ADDRESS = 4


async def test_a_flood_of_connections_is_refused_and_the_rest_goes_on(
    database_url: str, state_dir: Path
) -> None:
    limits = ConnectionLimits(per_address=PER_ADDRESS)
    async with running_exchange(database_url, state_dir, connections=limits) as exchange:
        where = urlsplit(exchange.url)
        node = await ScriptedNode.enrol(exchange)  # The client's connection is kept: one.
        await node.open()  # A session is a connection too: two.
        silent = [await asyncio.open_connection(where.hostname, where.port) for _ in range(PER_ADDRESS)]
        answers = [reader.read() for reader, _ in silent[PER_ADDRESS - 2 :]]
        for answer in await asyncio.wait_for(asyncio.gather(*answers), 10):
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"--connections-per-address" in answer
        assert (await exchange.client.get("/v1/nodes")).status_code == 200
        await node.beat()
        for _, writer in silent:
            writer.close()
        await node.close()
        async with asyncio.timeout(10):
            while True:  # Whoever leaves makes room: for the session's end too.
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection(where.hostname, where.port)
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if (await reader.read()).startswith(b"HTTP/1.1 200 "):
                        break
                await asyncio.sleep(0.05)
