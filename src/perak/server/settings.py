"""What an operator may set, with the defaults."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from perak.app.periods import Periods
from perak.domain.errors import InvalidInput
from perak.server.connections import ConnectionLimits
from perak.server.patience import Patience
from perak.server.tunnels import TunnelPeriods

HOST_DEFAULT = "127.0.0.1"
PORT_DEFAULT = 8470
NAME_DEFAULT = "local"
CURRENCY_DEFAULT = "USD"
FEE_BASIS_POINTS_DEFAULT = 200
"""Two percent of each charge stay with the exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How many bytes of blobs are kept: of a project, and of those that one node sent; and for how long, in
    seconds, what no job refers to."""

    project_bytes: int = 200 * 10**9
    """Two dozen of the largest outputs; a disk of 1 TB then takes five greedy projects."""
    node_bytes: int = 500 * 10**9
    """A node serves several projects; one that makes outputs up fills no more than this."""
    kept_seconds: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one replica. Name, currency and fee are fixed at the first start; None: as they are.

    Money in micro-units. `operator_key`: the secret of a key to make sure of, so that whoever starts the
    exchange knows one; `fund`: what the default project's wallet gets at the first start.
    """

    database: str = field(repr=False)
    state_dir: Path
    host: str = HOST_DEFAULT
    port: int = PORT_DEFAULT
    name: str | None = None
    currency: str | None = None
    fee_basis_points: int | None = None
    blobs: str | None = None
    secret_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_hosts: tuple[str, ...] = ()
    public_url: str | None = None
    replica_url: str | None = None
    """Where clients and nodes reach this very replica; needed where several stand behind one address."""
    operator_key: str | None = field(default=None, repr=False)
    fund: int = 0
    webhooks_to_private: bool = False
    """Whether webhooks may reach the exchange's own networks: only where every provider is trusted."""
    grid_file: Path | None = None
    """Which zone uses which feed, where the exchange is, who is where (`perak.adapters.feeds.config`)."""
    patience: Patience = field(default_factory=Patience)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    periods: Periods = field(default_factory=Periods)
    quotas: Quotas = field(default_factory=Quotas)
    tunnels: TunnelPeriods = field(default_factory=TunnelPeriods)

    @property
    def blob_url(self) -> str:
        return self.blobs or f"file://{(self.state_dir / 'blobs').absolute()}"

    @property
    def secret_path(self) -> Path:
        return self.secret_file or self.state_dir / "exchange.secret"

    @property
    def with_tls(self) -> bool:
        """TLS is on beyond loopback, and wherever a certificate is given."""
        return self.tls_certificate is not None or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of ``127.0.0.1:8470``, ``[::]:8470`` or ``:8470`` (this machine). Raises InvalidInput."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not an address to listen on; write it like 127.0.0.1:8470")
    return host.strip("[]") or HOST_DEFAULT, int(port)
