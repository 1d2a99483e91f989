"""What goes through a tunnel between a renter's machine and a run: TLS 1.3 whose ends are client and node.

The exchange joins two WebSockets and copies their messages; what they carry is this TLS stream, which it
can't read. The node shows the certificate and key that it signs its reports with; the client checks that the
chain ends at the exchange's authority and names the node that has the lease. The client shows a certificate
of its own, made for this one tunnel; its text went to the node with the exchange's order.

Inside TLS go frames: a kind, a length, that many bytes::

    client                                      node
      | -- REQUEST {"do": "exec", ...} ---------> |
      | <- ANSWER {} or {"error": ...} ---------- |
      | -- DATA, EOF, RESIZE, SIGNAL -----------> |   a terminal's input, or a port's bytes
      | <- DATA, ERRORS, EOF, EXIT -------------- |   its output; how the command ended
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

from perak.domain.errors import InvalidInput, Unavailable

CLIENT_PATH = "/v1/tunnels/{tunnel}"
NODE_PATH = "/v1/node/tunnels/{tunnel}"

CHUNK_BYTES = 96 * 1024
"""Of a stream in one frame, six TLS records. Larger ones are slower: from 128 KiB on glibc asks the kernel
for each block anew, and touching fresh pages costs more than all else together."""
MESSAGE_BYTES_MAX = 512 * 1024
"""A frame, what TLS adds to it, and room; the exchange takes messages up to 1 MiB."""
CONTROL_BYTES_MAX = 256 * 1024
"""A request with its command and environment; all other control frames are far smaller."""
HANDSHAKE_SECONDS = 15.0
"""Two round trips through the exchange."""
CERTIFICATE_CHARACTERS_MAX = 2_000
"""A client's certificate as PEM has some 500."""
CLOCK_SLACK = timedelta(days=1)
"""A client's certificate is good for its one tunnel alone; the clocks of its ends may differ."""

REQUEST, ANSWER, DATA, ERRORS, EOF, RESIZE, SIGNAL, EXIT = range(8)
_STREAMED = (DATA, ERRORS)
_HEADER = struct.Struct(">BI")


HEAP_KEPT_BYTES = 4 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


@cache
def keep_buffers() -> None:
    """Let this process reuse the memory of its buffers, which glibc would give back and ask for anew.

    A third of the time that a byte takes through a tunnel goes there otherwise. Elsewhere than under glibc
    nothing happens.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, HEAP_KEPT_BYTES // 4)
        libc.mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES)


class TunnelClosed(Unavailable):
    """The tunnel ended before what went through it had; the message says why, as far as it is known."""

    code = "tunnel_closed"


class Messages(Protocol):
    """A WebSocket, as far as a tunnel needs it. `recv` raises TunnelClosed at the end."""

    async def recv(self) -> bytes: ...

    async def send(self, message: bytes) -> None: ...


class Channel:
    """Frames over TLS over messages. One task receives; any may send. Bytes of a stream come in pieces."""

    def __init__(self, messages: Messages, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._messages = messages
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._sending = asyncio.Lock()
        self._kind, self._left = -1, 0
        self._header = b""

    async def handshake(self) -> bytes:
        """Agree on keys; the other end's certificate (DER). Raises TunnelClosed."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                while True:
                    try:
                        self._tls.do_handshake()
                    except ssl.SSLWantReadError:
                        await self._flush()
                        self._incoming.write(await self._messages.recv())
                    else:
                        await self._flush()
                        break
        except ssl.SSLError as error:
            with suppress(TunnelClosed):
                await self._flush()
            raise TunnelClosed(
                f"the other end of the tunnel could not prove itself: {_reason(error)}"
            ) from None
        except TimeoutError:
            raise TunnelClosed("the other end of the tunnel did not answer in time") from None
        shown = self._tls.getpeercert(binary_form=True)
        assert shown is not None, "both ends require a certificate"
        return shown

    async def send(self, kind: int, data: bytes | memoryview = b"") -> None:
        """Send a frame; waits while the way is full. Raises TunnelClosed."""
        async with self._sending:
            self._tls.write(_HEADER.pack(kind, len(data)))
            if data:
                self._tls.write(data)
            await self._messages.send(self._outgoing.read())

    async def send_json(self, kind: int, value: dict[str, Any]) -> None:
        await self.send(kind, json.dumps(value).encode())

    async def receive(self) -> tuple[int, bytes]:
        """The next frame, or the next piece of a stream's. Raises TunnelClosed, InvalidInput."""
        while True:
            try:
                if (frame := self._read()) is not None:
                    return frame
            except ssl.SSLWantReadError:
                if self._outgoing.pending:  # TLS itself answers now and then
                    await self._flush()
                self._incoming.write(await self._messages.recv())
            except ssl.SSLError as error:
                raise TunnelClosed(
                    f"the tunnel's bytes were changed on their way: {_reason(error)}"
                ) from None

    async def receive_json(self, kind: int) -> dict[str, Any]:
        """A frame of this kind alone. Raises TunnelClosed, InvalidInput."""
        found, data = await self.receive()
        if found != kind:
            raise InvalidInput("the other end of the tunnel sent another frame than was due")
        return json_of(data)

    def _read(self) -> tuple[int, bytes] | None:
        """One step; None: a frame's header was read. Raises SSLWantReadError where bytes are missing."""
        if self._kind == -1:
            self._header += self._tls.read(_HEADER.size - len(self._header))
            if len(self._header) < _HEADER.size:
                return None
            kind, self._left = _HEADER.unpack(self._header)
            self._header = b""
            if self._left > (CHUNK_BYTES if kind in _STREAMED else CONTROL_BYTES_MAX):
                raise InvalidInput("a frame in the tunnel is too large")
            self._kind, self._control = kind, b""
            if self._left == 0:
                self._kind = -1
                return kind, b""
            return None
        kind = self._kind
        pieces = []
        try:
            while self._left:
                piece = self._tls.read(self._left)
                if not piece:
                    raise TunnelClosed("the tunnel was closed by the other end")
                self._left -= len(piece)
                pieces.append(piece)
        except ssl.SSLWantReadError:
            if kind in _STREAMED and pieces:
                return kind, b"".join(pieces)
            self._control += b"".join(pieces)
            raise
        self._kind = -1
        return kind, self._control + b"".join(pieces)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._messages.send(self._outgoing.read())


async def join_socket(channel: Channel, link: socket.socket) -> None:
    """Copy between a channel and a socket (not blocking); each way may end before the other."""
    loop = asyncio.get_running_loop()

    async def out() -> None:
        with suppress(ConnectionError):
            while data := await loop.sock_recv(link, CHUNK_BYTES):
                await channel.send(DATA, data)
        await channel.send(EOF)

    async def back() -> None:
        while True:
            kind, data = await channel.receive()
            if kind == EOF:
                link.shutdown(socket.SHUT_WR)
                return
            if kind == DATA:
                await loop.sock_sendall(link, data)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(out())
        tasks.create_task(back())


def json_of(data: bytes) -> dict[str, Any]:
    """The object in a control frame. Raises InvalidInput."""
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("a control frame in the tunnel can't be understood")
    return value


async def streamed(channel: Channel) -> AsyncIterator[tuple[int, bytes]]:
    """All frames until the channel ends; whoever reads stops by itself at the frame that is the last."""
    while True:
        yield await channel.receive()


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key for one tunnel, with its certificate as PEM."""

    certificate: str
    key: bytes

    @classmethod
    def make(cls) -> ClientKey:
        """A new one, signed by itself."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Perak tunnel")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(now + CLOCK_SLACK)
            .sign(key, None)
        )
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cls(made.public_bytes(encoding).decode(), private)

    def context(self, *, authority_pem: str) -> ssl.SSLContext:
        """TLS as the client speaks it; which node answered is for `check_node`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # Nodes have no host names; `check_node` compares their id.
        context.load_verify_locations(cadata=authority_pem)
        # Python takes a key from a file only; this one is ours alone, and gone at once.
        with tempfile.NamedTemporaryFile(delete=False) as file:
            try:
                file.write(self.key + self.certificate.encode())
                file.close()
                context.load_cert_chain(file.name)
            finally:
                os.unlink(file.name)
        return context


def node_context(*, chain_file: str, key_file: str, client_certificate: str) -> ssl.SSLContext:
    """TLS as the node speaks it, with this one client only. Raises InvalidInput on what is no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # No tunnel is resumed.
    context.load_cert_chain(chain_file, key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=client_certificate)
    except ssl.SSLError:
        raise InvalidInput("the client's certificate of this tunnel can't be understood") from None
    return context


def check_node(certificate: bytes, *, authority_pem: str, node: str) -> None:
    """That a certificate (DER) is the node's, by the exchange's authority. Raises IdentityError."""
    from perak.wire.identity import IdentityError, from_pem, verify_chain

    chain = (certificate, from_pem(authority_pem.encode()))
    proven = verify_chain(chain, at=datetime.now(UTC))
    if proven.subject_id != node:
        raise IdentityError(
            f"The tunnel leads to {proven.subject_id}, and the job runs on {node}: somebody is in between. "
            "Nothing was sent. Tell the exchange's operator."
        )


def check_client(certificate: bytes, *, client_certificate: str) -> None:
    """That the client is the one that the order names. Raises TunnelClosed."""
    if certificate != ssl.PEM_cert_to_DER_cert(client_certificate.strip()):
        raise TunnelClosed("another client than the one that was announced")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "broken").replace("_", " ").lower()
