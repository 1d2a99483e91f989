"""The jobs' proxy on real sockets: what passes, what is counted, what a hostile name or server gains."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from perak.agent.network import proxy
from perak.agent.network.proxy import NetworkProxy, Traffic
from perak.agent.network.rules import Rules

RUN = "run-1@local"


class Server(http.server.ThreadingHTTPServer):
    """Says what it was asked, and redirects /away to a metadata service."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_port


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.end_headers()
            return
        self._say(f"{self.command} {self.path} host={self.headers['Host']}".encode())

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self._say(b"%d bytes" % len(self.rfile.read(size)))

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Names:
    """A name server's word, which may change from one question to the next."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        found = self.answers[host]
        return found.pop(0) if len(found) > 1 else found[0]


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.shutdown()
    found.server_close()


@dataclass
class Notes:
    """What an agent keeps of one run."""

    allow: tuple[str, ...]
    traffic: Traffic = field(default_factory=Traffic)

    def rules(self, run: str) -> Rules | None:
        return Rules.of(self.allow) if run == RUN else None

    def read(self, run: str) -> Traffic:
        return self.traffic

    def write(self, run: str, traffic: Traffic) -> None:
        self.traffic = traffic


@contextlib.contextmanager
def serving(
    allow: tuple[str, ...], names: Names, *, only_public: bool = False
) -> Iterator[tuple[NetworkProxy, socket.socket, Traffic]]:
    notes = Notes(allow)
    served = NetworkProxy(notes, resolve=names.resolve, only_public=only_public)
    listener = socket.create_server(("127.0.0.1", 0), backlog=proxy.BACKLOG)
    address = listener.getsockname()
    served.open(RUN, listener)
    client = socket.create_connection(address, timeout=10)
    try:
        yield served, client, notes.traffic
    finally:
        client.close()
        served.stop()


def ask(client: socket.socket, request: bytes, *, end: bool = False) -> bytes:
    """All that comes back until the other side closes."""
    client.sendall(request)
    if end:
        client.shutdown(socket.SHUT_WR)
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def test_plain_http_passes_and_every_byte_is_counted(server: Server) -> None:
    names = Names({"models.test": [["127.0.0.1"]]})
    with serving((f"models.test:{server.port}",), names) as (_, client, traffic):
        reply = ask(
            client, f"GET http://models.test:{server.port}/a?b=c HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )

    assert reply.endswith(f"GET /a?b=c host=models.test:{server.port}".encode())
    assert traffic.received_bytes == len(reply)
    assert traffic.sent_bytes > 0


def test_a_body_goes_up(server: Server) -> None:
    names = Names({"models.test": [["127.0.0.1"]]})
    body = b"x" * 500_000
    head = f"POST http://models.test:{server.port}/ HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving((f"models.test:{server.port}",), names) as (_, client, traffic):
        reply = ask(client, head + body)

    assert reply.endswith(b"500000 bytes")
    assert traffic.sent_bytes > len(body)


def test_a_tunnel_carries_both_ways_and_a_half_closed_one_still_answers() -> None:
    """Some protocols say "that was all" by closing their half, and then wait for the answer."""
    echo = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            accepted, _ = echo.accept()
            data = b""
            while more := accepted.recv(65536):
                data += more
            accepted.sendall(data[::-1])
            accepted.close()

    threading.Thread(target=serve, daemon=True).start()
    port = echo.getsockname()[1]
    with serving((f"echo.test:{port}",), Names({"echo.test": [["127.0.0.1"]]})) as (_, client, traffic):
        client.sendall(f"CONNECT echo.test:{port} HTTP/1.1\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert ask(client, b"abc" * 100_000, end=True) == b"cba" * 100_000
    echo.close()

    assert (traffic.sent_bytes, traffic.received_bytes) == (300_000, 300_000)


def test_what_was_not_named_is_refused_with_what_to_do(server: Server) -> None:
    names = Names({"other.test": [["127.0.0.1"]]})
    with serving(("models.test:443",), names) as (_, client, traffic):
        reply = ask(client, f"CONNECT other.test:{server.port} HTTP/1.1\r\n\r\n".encode())

    assert reply.startswith(b"HTTP/1.1 403")
    assert b"network.allow" in reply
    assert (names.asked, traffic.refused) == ([], 1), "not even the name is looked up"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:192.168.0.1", "fd00:ec2::254"]
)
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    names = Names({"inside.test": [[address]]})
    with serving(("inside.test:80",), names, only_public=True) as (_, client, traffic):
        reply = ask(client, b"GET http://inside.test/ HTTP/1.1\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 403")
    assert b"no public address" in reply
    assert traffic.refused == 1


def test_an_address_in_place_of_a_name_gains_nothing() -> None:
    names = Names({"169.254.169.254": [["169.254.169.254"]]})
    with serving(("169.254.169.254:80",), names, only_public=True) as (_, client, _traffic):
        reply = ask(client, b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 403")


def test_a_name_that_changes_its_mind_is_asked_once(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """DNS rebinding: public when checked, the metadata service when dialled. One look serves for both."""
    dialled: list[str] = []
    names = Names({"rebind.test": [["93.184.216.34"], ["169.254.169.254"]]})
    real = asyncio.open_connection

    async def dial(host: str | None = None, port: int | None = None, **more: Any) -> Any:
        if host is None:
            return await real(**more)
        dialled.append(host)
        raise OSError("not from a test")

    monkeypatch.setattr(asyncio, "open_connection", dial)
    with serving(("rebind.test:80",), names, only_public=True) as (_, client, _traffic):
        reply = ask(client, b"GET http://rebind.test/ HTTP/1.1\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 502")
    assert (names.asked, dialled) == (["rebind.test"], ["93.184.216.34"])


def test_a_redirect_is_the_jobs_to_follow_and_is_then_refused(server: Server) -> None:
    names = Names({"models.test": [["127.0.0.1"]], "169.254.169.254": [["169.254.169.254"]]})
    allow = (f"models.test:{server.port}",)
    with serving(allow, names) as (_, client, _traffic):
        reply = ask(client, f"GET http://models.test:{server.port}/away HTTP/1.1\r\n\r\n".encode())
    with serving(allow, names) as (_, client, _traffic):
        followed = ask(client, b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n")

    assert b"302" in reply.splitlines()[0]
    assert followed.startswith(b"HTTP/1.1 403")


def test_the_end_of_the_run_ends_its_connections() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    with serving((f"silent.test:{port}",), Names({"silent.test": [["127.0.0.1"]]})) as (served, client, _):
        client.sendall(f"CONNECT silent.test:{port} HTTP/1.1\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        served.close(RUN)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        with pytest.raises(OSError):  # nobody listens any more
            socket.create_connection(client.getpeername(), timeout=1)
    silent.close()


@pytest.mark.parametrize(
    "head", [b"\xff\xfe\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"x" * 200_000]
)
def test_what_is_no_request_to_a_proxy_is_refused(head: bytes) -> None:
    closed_early = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with serving(("models.test:443",), Names()) as (_, client, _traffic), closed_early:
        assert ask(client, head).split(b" ")[1] in (b"400", b"403", b"502")
