"""The exchange's own TLS certificate."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from perak.server.certificates import tls_files
from perak.server.settings import Settings
from perak.wire.identity import Authority

NOW = datetime(2026, 11, 2, tzinfo=UTC)


def test_it_names_its_hosts_and_is_private(tmp_path: Path) -> None:
    authority = Authority.create("home", now=NOW)
    settings = Settings(database="", state_dir=tmp_path, host="10.1.2.3", tls_hosts=("gpu.example.org",))
    files = tls_files(settings, authority, now=NOW)
    assert files is not None
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "gpu.example.org" in names.get_values_for_type(x509.DNSName)
    assert "10.1.2.3" in {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    assert files.key.stat().st_mode & 0o077 == 0
    assert tls_files(settings, authority, now=NOW) == files, "each start makes a fresh one in its place"


def test_loopback_needs_none(tmp_path: Path) -> None:
    authority = Authority.create("home", now=NOW)
    assert tls_files(Settings(database="", state_dir=tmp_path), authority, now=NOW) is None
