"""The wire breaks at the worst moment: what was committed is found again, and done once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
from server_world import PLAIN, Running, ScriptedNode, enrolment

from perak.client import AsyncClient
from perak.wire.invite import Invite
from perak.wire.signing import SigningKey


class Cutter:
    """A way to the exchange that swallows the first `left` replies to POST, and cuts the connection there.

    The exchange has committed by then: it answers after the commit.
    """

    def __init__(self, exchange: Running, left: int) -> None:
        self._to = urlsplit(exchange.url)
        self.left = left
        self.url = ""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while data := await reader.read(65_536):
                there_writer.write(data)
                answer = await there_reader.read(65_536)
                if data.startswith(b"POST") and self.left:
                    self.left -= 1
                    break
                writer.write(answer)
                await writer.drain()
        writer.transport.abort()
        there_writer.close()


@contextlib.asynccontextmanager
async def cutting(exchange: Running, left: int) -> AsyncIterator[Cutter]:
    cutter = Cutter(exchange, left)
    server = await asyncio.start_server(cutter.pass_on, "127.0.0.1", 0)
    cutter.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield cutter


async def test_a_cut_between_commit_and_reply_makes_one_job(exchange: Running) -> None:
    async with cutting(exchange, 2) as cutter, AsyncClient(cutter.url, api_key=exchange.key) as client:
        job = await client.submit({"name": "once", "run": "true"})
    assert cutter.left == 0
    found = (await exchange.client.get("/v1/jobs")).json()["items"]
    assert [item["id"] for item in found] == [job.id]
    wallet = (await exchange.client.get("/v1/wallet")).json()
    assert wallet["held"] == found[0]["held"]


async def test_a_cut_while_enrolling_makes_one_node(exchange: Running) -> None:
    token = (await exchange.client.post("/v1/invites", json={})).json()["token"]
    body = enrolment(Invite.decode(token).secret, SigningKey.generate(), "node")
    async with cutting(exchange, 1) as cutter, httpx.AsyncClient(base_url=cutter.url, verify=PLAIN) as client:
        with contextlib.suppress(httpx.TransportError):
            await client.post("/v1/enrol", json=body)
        again = await client.post("/v1/enrol", json=body)
    assert again.status_code == 201
    (node,) = (await exchange.client.get("/v1/nodes")).json()["items"]
    assert node["id"] == again.json()["node"]


async def test_one_invite_used_by_many_at_once_lets_one_in(exchange: Running) -> None:
    token = (await exchange.client.post("/v1/invites", json={})).json()["token"]
    secret = Invite.decode(token).secret
    answers = await asyncio.gather(
        *(
            exchange.client.post("/v1/enrol", json=enrolment(secret, SigningKey.generate(), f"node-{n}"))
            for n in range(8)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 7


async def test_one_key_that_enrols_many_times_at_once_is_one_node(exchange: Running) -> None:
    token = (await exchange.client.post("/v1/invites", json={"uses": 8})).json()["token"]
    body = enrolment(Invite.decode(token).secret, SigningKey.generate(), "node")
    answers = await asyncio.gather(*(exchange.client.post("/v1/enrol", json=body) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    again = await exchange.client.post("/v1/enrol", json=body)
    nodes = {answer.json()["node"] for answer in (*answers, again) if answer.status_code == 201}
    assert len(nodes) == 1


async def test_many_cancels_and_the_end_at_once_settle_once(exchange: Running, node: ScriptedNode) -> None:
    from server_world import exited, now_ms, started

    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1_000
    await node.report(started(order, at=at))
    cancels = [exchange.client.post(f"/v1/jobs/{job}/cancel") for _ in range(10)]
    _, *answers = await asyncio.gather(node.report(exited(order, started_at=at)), *cancels)
    assert {answer.status_code for answer in answers} == {200}
    detail = await exchange.job(job)
    assert (detail["state"], detail["held"], len(detail["runs"])) == ("succeeded", "0.00", 1)
    assert len((await exchange.client.get("/v1/receipts", params={"job": job})).json()["items"]) == 1
