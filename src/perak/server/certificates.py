"""Certificates that the exchange issues: to nodes, and to its own TLS server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from perak.domain.errors import InvalidInput
from perak.server.settings import Settings, is_loopback
from perak.wire.identity import (
    NODE_CERT_LIFETIME,
    Authority,
    VerifiedChain,
    issue_node_certificate,
    issue_server_certificate,
    starts_at,
    to_pem,
    verify_chain,
)

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A node's certificate with the authority's behind it, as PEM."""

    chain_pem: str
    expires_at: datetime


def node_certificate(
    authority: Authority,
    *,
    node: str,
    sign_key: bytes,
    now: datetime,
    lifetime: timedelta = NODE_CERT_LIFETIME,
    since: datetime | None = None,
) -> NodeCertificate:
    """A fresh certificate for a node's key; `since`: when it begins, if not now."""
    leaf = issue_node_certificate(
        authority, node_id=node, public_key=sign_key, now=now, lifetime=lifetime, since=since
    )
    return NodeCertificate((to_pem(leaf) + authority.certificate_pem).decode(), now + lifetime)


def certified(
    authority: Authority, *, node: str, sign_key: bytes, chain: Sequence[bytes]
) -> VerifiedChain | None:
    """What this authority once certified to the node by `chain` (DER), expired or not; None: nothing."""
    try:
        found = verify_chain(chain, at=starts_at(chain[0]), trusted_fingerprint=authority.fingerprint)
    except (InvalidInput, IndexError):
        return None
    return found if (found.subject_id, found.public_key) == (node, sign_key) else None


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the server's certificate chain and key are."""

    certificate: Path
    key: Path


def tls_files(settings: Settings, authority: Authority, *, now: datetime) -> TlsFiles | None:
    """The given certificate, else one of the exchange's own authority, fresh at each start; None on loopback.

    The own one names the hosts of the settings, the address that is listened on, and this machine.
    """
    if not settings.with_tls:
        return None
    if settings.tls_certificate is not None:
        return TlsFiles(settings.tls_certificate, settings.tls_key or settings.tls_certificate)
    hosts = [*settings.tls_hosts, *LOOPBACK_HOSTS]
    if settings.host not in ("0.0.0.0", "::") and not is_loopback(settings.host):  # noqa: S104  # no name
        hosts.append(settings.host)
    made = issue_server_certificate(authority, hosts=list(dict.fromkeys(hosts)), now=now)
    folder = settings.state_dir / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = TlsFiles(folder / "server.pem", folder / "server.key")
    _write(files.certificate, made.chain_pem)
    _write(files.key, made.key_pem)
    return files


def _write(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
