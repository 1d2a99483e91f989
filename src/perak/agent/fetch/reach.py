"""Which hosts a node may fetch from on a renter's behalf, and the connection to one.

A renter who names ``https://192.168.1.1/`` would read the provider's router through the node. So names are
resolved here, every address is looked at, and the connection goes to an address that was looked at: neither a
redirect nor a name server that changes its mind leads elsewhere.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from perak.domain.addresses import is_public
from perak.domain.errors import DomainError, Unavailable


class NotReachable(DomainError):
    """A host, or a way to it, that this node refuses; the message says why and what to do."""

    code = "not_reachable"


@dataclass(frozen=True)
class Reach:
    """`private_hosts`: ``host`` or ``host:port`` that may lie in the provider's own network, and may be
    spoken to without TLS."""

    private_hosts: frozenset[str] = frozenset()
    timeout_seconds: float = 30.0

    def is_private(self, host: str, port: int) -> bool:
        """Whether the provider opened this host, wherever it lies."""
        return host in self.private_hosts or f"{host}:{port}" in self.private_hosts

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The system's certificates, or those of SSL_CERT_FILE."""
        return ssl.create_default_context()

    def connect(self, host: str, port: int, *, tls: bool) -> http.client.HTTPConnection:
        """A connection that will go to an address of `host` that may be reached. Raises NotReachable."""
        if not tls and not self.is_private(host, port):
            raise NotReachable(f"{host}:{port} speaks no TLS; only https is fetched from other networks")
        if tls:
            return _PinnedHTTPS(self, host, port)
        return _Pinned(self, host, port)

    def speaks_tls(self, host: str, port: int) -> bool:
        """Whether a host of the provider's own network answers a TLS greeting at all."""
        try:
            link = self.connect(host, port, tls=True)
            link.connect()
            link.close()
        except ssl.SSLCertVerificationError:
            return True
        except ssl.SSLError:
            return False
        return True

    def open_socket(self, host: str, port: int) -> socket.socket:
        """A connected socket. Raises NotReachable, Unavailable."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"{host} can't be resolved: {error}") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self.is_private(host, port):
            check_public(host, addresses)
        why: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((address, port), self.timeout_seconds)
            except OSError as error:
                why = error
        raise Unavailable(f"{host}:{port} does not answer: {why}")


def check_public(host: str, addresses: Iterable[str]) -> None:
    """Raises NotReachable unless every address is of the public internet."""
    for text in addresses:
        if not is_public(text):
            raise NotReachable(
                f"{host} leads to {text}, which is not on the public internet; this node fetches nothing "
                "from its provider's own network (the provider may name the host under `private_hosts`)"
            )


class _Pinned(http.client.HTTPConnection):
    def __init__(self, reach: Reach, host: str, port: int) -> None:
        super().__init__(host, port, timeout=reach.timeout_seconds)
        self._reach = reach

    def connect(self) -> None:
        self.sock = self._reach.open_socket(self.host, self.port)


class _PinnedHTTPS(http.client.HTTPSConnection):
    def __init__(self, reach: Reach, host: str, port: int) -> None:
        super().__init__(host, port, timeout=reach.timeout_seconds, context=reach.tls)
        self._reach = reach

    def connect(self) -> None:
        plain = self._reach.open_socket(self.host, self.port)
        try:
            self.sock = self._reach.tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
