"""The HTTPS listener takes a new certificate without a restart, and no broken one."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from server_world import PATIENCE_SECONDS

from perak.server import tls
from perak.server.auth import new_secret
from perak.server.certificates import TlsFiles, tls_files
from perak.server.serving import prepared
from perak.server.settings import Settings
from perak.wire.identity import SERVER_CERT_LIFETIME, Authority, issue_server_certificate

NOW = datetime.now(UTC)


def write(files: TlsFiles, authority: Authority) -> None:
    made = issue_server_certificate(authority, hosts=["127.0.0.1"], now=NOW)
    files.certificate.write_bytes(made.chain_pem)
    files.key.write_bytes(made.key_pem)


def shown(port: int) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_replaced_certificate_is_shown_to_new_connections_and_half_a_pair_is_not(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.05)
    authority = Authority.create("own", now=NOW)
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(files, authority)
    settings = Settings(
        database=database_url, state_dir=tmp_path / "x", port=0, operator_key=new_secret(),
        tls_certificate=files.certificate, tls_key=files.key,
    )  # fmt: skip
    trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    async with prepared(settings) as (server, sockets, services, _):
        serving = asyncio.create_task(server.serve(sockets))
        port = sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=services.url, verify=trust) as client:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not server.started:
                    await asyncio.sleep(0.01)
            assert (await client.get("/v1/exchange")).status_code == 200
            first = await asyncio.to_thread(shown, port)

            files.key.write_bytes(issue_server_certificate(authority, hosts=["x"], now=NOW).key_pem)
            await asyncio.sleep(0.3)
            assert await asyncio.to_thread(shown, port) == first, "a key of another certificate is not taken"

            write(files, authority)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await asyncio.to_thread(shown, port) == first:
                    await asyncio.sleep(0.05)
            assert (await client.get("/v1/exchange")).status_code == 200, "an open connection goes on"
        server.should_exit = True
        await serving


def test_the_exchanges_own_certificate_is_made_again_when_half_of_its_life_is_over(tmp_path: Path) -> None:
    authority = Authority.create("own", now=NOW)
    settings = Settings(database="", state_dir=tmp_path, host="10.1.2.3")
    files = tls_files(settings, authority, now=NOW)
    assert files is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = tls.Listener(settings, authority, files)
    before = files.certificate.read_bytes()
    assert not listener.look(context, NOW + SERVER_CERT_LIFETIME / 2 - timedelta(hours=1))
    assert files.certificate.read_bytes() == before
    later = NOW + SERVER_CERT_LIFETIME / 2 + timedelta(hours=1)
    assert listener.look(context, later)
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert leaf.not_valid_after_utc > later + SERVER_CERT_LIFETIME - timedelta(hours=1)
    assert not listener.look(context, later)
