"""An exchange with an authority of its own, over real TLS: pinned or not believed."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perak.cli import exits
from perak.cli.app import App
from perak.cli.main import cli
from perak.client import Client, ExchangeUnreachable
from perak.client.config import Target, load_profiles
from perak.wire.identity import Authority, issue_server_certificate

NOW = datetime.now(UTC)


@dataclass
class Server:
    """Answers who it is and who asks, and remembers the keys that it was shown."""

    url: str
    authority: Authority
    keys: list[str | None] = field(default_factory=list)

    def answer(self, path: str) -> dict[str, object]:
        if path == "/v1/exchange":
            return {
                "name": "home", "version": "0.1.0", "currency": "USD", "fee_percent": 5.0,
                "ca_fingerprint": self.authority.fingerprint,
                "ca_certificate": self.authority.certificate_pem.decode(),
            }  # fmt: skip
        return {"project": "p", "project_name": "lab", "key": "k", "key_name": "laptop", "roles": ["renter"]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    authority = Authority.create("home", now=NOW)
    certificate = issue_server_certificate(authority, hosts=["127.0.0.1"], now=NOW)
    (tmp_path / "server.pem").write_bytes(certificate.key_pem + certificate.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.keys.append(self.headers["Authorization"])
            body = json.dumps(found.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    found = Server(f"https://127.0.0.1:{http.server_port}", authority)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PERAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PERAK_STATE_DIR", str(tmp_path / "state"))


def perak(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), obj=App(), catch_exceptions=False)


def test_the_pinned_authority_alone_is_believed(server: Server) -> None:
    pinned = server.authority.certificate_pem.decode()
    with Client(target=Target(url=server.url, ca_certificate=pinned)) as client:
        assert client.exchange().name == "home"
    stranger = Authority.create("home", now=NOW).certificate_pem.decode()
    for certificate in (None, stranger):
        target = Target(url=server.url, api_key="pk_secret", ca_certificate=certificate)
        with Client(target=target) as client, pytest.raises(ExchangeUnreachable, match="perak login"):
            client.me()
    assert server.keys == [None]


def test_login_pins_the_authority_that_the_operator_named(server: Server) -> None:
    said = perak("login", server.url, "--key", "pk_secret", "--fingerprint", server.authority.fingerprint)

    assert said.exit_code == 0, said.stderr
    assert load_profiles().by_name["home"].ca_certificate == server.authority.certificate_pem.decode()
    with Client() as client:
        assert client.me().key_name == "laptop"


@pytest.mark.parametrize("fingerprint", [None, "sha256:" + "0" * 64], ids=["none", "other"])
def test_login_shows_no_key_to_an_authority_that_nobody_confirmed(
    server: Server, fingerprint: str | None
) -> None:
    given = ["--fingerprint", fingerprint] if fingerprint else []
    said = perak("login", server.url, "--key", "pk_secret", *given)

    assert said.exit_code == exits.NOT_CONFIGURED
    assert server.authority.fingerprint in said.stderr
    assert set(server.keys) == {None}
    assert not load_profiles().by_name
