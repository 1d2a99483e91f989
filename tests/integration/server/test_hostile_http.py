"""Strangers over plain TCP: slow, endless and broken requests. Each ends by a named limit; others go on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from server_world import PATIENCE_SECONDS, PLAIN, Running, running_exchange

from perak.server.patience import HEAD_BYTES_MAX, Patience
from perak.wire.api import BODY_BYTES_MAX

QUICK = Patience(
    head_seconds=2, body_seconds=2, piece_seconds=1, stream_bytes_per_second=10**6, linger_seconds=0.5
)
"""An honest request of a busy machine is in time; the slow ones of these tests are slow all at once."""
UNTIL_CUT_SECONDS = 60
"""Far above QUICK, far below the test's own timeout."""


@pytest.fixture
async def quick(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with (
        running_exchange(database_url, tmp_path / "exchange", patience=QUICK) as running,
        httpx.AsyncClient(
            base_url=running.url,
            headers=running.client.headers,
            limits=httpx.Limits(max_keepalive_connections=0),  # so quick an exchange closes those at any time
            timeout=PATIENCE_SECONDS,
            verify=PLAIN,
        ) as client,
    ):
        yield replace(running, client=client)


async def drip(exchange: Running, head: bytes, piece: bytes, *, pause: float = 0.05) -> bytes:
    """Send `head`, then `piece` for ever; what was answered until the exchange cut the connection."""
    address = urlsplit(exchange.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    answer = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                answer.extend(data)

    async with asyncio.timeout(UNTIL_CUT_SECONDS):
        reading = asyncio.create_task(read())
        with contextlib.suppress(ConnectionError):
            writer.write(head)
            while not reading.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        await reading
    writer.close()
    return bytes(answer)


def post(key: str, path: str = "/v1/jobs", *, method: str = "POST") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


async def test_slow_drips_are_cut_and_cost_nobody_else(quick: Running) -> None:
    blob = f"/v1/blobs/sha256:{hashlib.sha256(b'').hexdigest()}"
    drips = [
        asyncio.create_task(drip(quick, head, piece))
        for head, piece in (
            (b"", b"\r\n"),
            (b"GET /v1/jo", b"b"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"),
            (post(quick.key), b"1\r\n \r\n"),
            (post(quick.key, blob, method="PUT"), b"1\r\nx\r\n"),
            (post("wrong"), b"1\r\n \r\n"),
        )
    ]
    for _ in range(10):
        assert (await quick.client.get("/v1/jobs")).status_code == 200
    nothing, line, headers, body, stream, unknown = await asyncio.gather(*drips)
    assert (nothing, line, headers) == (b"", b"", b"")
    assert b"408 Request Timeout" in body
    assert b'"code":"too_slow"' in body
    assert b'"code":"too_slow"' in stream
    assert b" 401 " in unknown or b" 408 " in unknown
    assert (await quick.client.head(blob)).status_code == 404


async def test_what_has_no_end_is_cut_at_its_limit(quick: Running) -> None:
    endless = b"A" * 8_192
    url, header, body = await asyncio.gather(
        drip(quick, b"GET /", endless, pause=0),
        drip(quick, b"GET / HTTP/1.1\r\nA: ", endless, pause=0),
        drip(quick, post(quick.key), b"2000\r\n" + endless + b"\r\n", pause=0),
    )
    for answer in (url, header):
        assert b"400 Bad Request" in answer
        assert f"{HEAD_BYTES_MAX:,}".encode() in answer
    assert b"413 " in body
    assert f"{BODY_BYTES_MAX:,}".encode() in body
    assert (await quick.client.get("/v1/jobs")).json()["items"] == []


async def test_broken_requests_are_refused_and_never_a_fault_of_ours(exchange: Running) -> None:
    client = exchange.client
    for method, path, rest in (
        ("GET", "/v1/jobs/%00", {}),
        ("GET", "/v1/jobs?name=%00", {}),
        ("GET", "/v1/jobs?cursor=a%00", {}),
        ("GET", "/v1/jobs/%ff%fe", {}),
        ("POST", "/v1/jobs/%ff/cancel", {}),
        ("POST", "/v1/jobs", {"content": b"[" * 100_000}),
        ("POST", "/v1/jobs", {"content": b'{"job": ' + b'{"a":' * 900 + b"1" + b"}" * 901}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "a\\u0000b"}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "\\ud800"}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "\\ud800": "y", "run": "z"}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "\xff"}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "y", "resources": {"cpu": NaN}}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "y", "resources": {"cpu": -1}}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "y", "resources": {"cpu": 0}}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "y", "resources": {"cpu": 1e400}}}'}),
        ("POST", "/v1/jobs", {"content": b'{"job": {"name": "x", "run": "y", "retry": {"max_attempts": '
                              + b"9" * 5_000 + b"}}}"}),
        ("POST", "/v1/jobs", {"json": {"job": {"name": "x", "run": "y", "resources": {"gpu_count": 9**99}}}}),
        ("POST", "/v1/jobs", {"json": {"job": {"name": "x", "run": "y", "outputs": ["../../etc/passwd"]}}}),
        ("POST", "/v1/jobs", {"json": {"job": {"name": "x", "run": "y", "outputs": ["/etc"]}}}),
        ("POST", "/v1/wallet/funds", {"json": {"amount": "1", "note": "a\0b"}}),
        ("POST", "/v1/wallet/funds", {"json": {"amount": "-1"}}),
        ("POST", "/v1/wallet/funds", {"json": {"amount": "9" * 400}}),
        ("POST", "/v1/enrol", {"json": {"secret": "\0", "name": "x", "sign_key": "\0", "seal_key": ""}}),
        ("POST", "/v1/keys", {"json": {"name": "x", "roles": ["renter"], "project": "a\0"}}),
        ("GET", "/v1/jobs", {"headers": {"Authorization": b"Bearer \xff\xfe"}}),
        ("POST", "/v1/jobs", {"headers": {"Idempotency-Key": b"\xff" * 10}, "content": b"{}"}),
        ("PUT", "/v1/blobs/sha256:../../../etc/passwd", {"content": b"x"}),
        ("GET", "/v1/node/leases/x/workdir", {"headers": {"Authorization": "Node e30.e30.e30"}}),
    ):  # fmt: skip
        answer = await client.request(method, path, **rest)  # type: ignore[arg-type]
        assert 400 <= answer.status_code < 500, (method, path, rest, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", (path, answer.text)
        assert answer.json()["detail"]
    assert (await client.get("/v1/jobs")).json()["items"] == []


async def test_wrong_keys_do_not_lock_out_those_behind_the_same_address(exchange: Running) -> None:
    wrong = [exchange.client.get("/v1/me", headers={"Authorization": f"Bearer {n}"}) for n in range(70)]
    codes = [answer.status_code for answer in await asyncio.gather(*wrong)]
    assert set(codes) == {401, 429}
    exchange.services.keys.clear()
    assert (await exchange.client.get("/v1/me")).status_code == 200
