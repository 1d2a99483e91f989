"""An S3-speaking server, an https server with an authority of its own, and a node that fetches from them."""

from __future__ import annotations

import datetime
import ipaddress
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from input_world import NodeInputs, Storage, Web

from stand_ins.sly_server import SlyServer


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """moto's server, with one bucket that anybody may read."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        (url,) = next(
            found for line in server.stderr if (found := re.findall(r"http://127\.0\.0\.1:\d+", line))
        )
        urllib.request.urlopen(urllib.request.Request(f"{url}/public", method="PUT")).close()
        yield Storage(url)
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key in one file; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def web(certificate: Path) -> Iterator[Web]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with SlyServer({}, tls=tls) as server:
        yield Web(server)


@pytest.fixture
def node(web: Web, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeInputs]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    state_dir = Path(tempfile.mkdtemp(prefix="perak-inputs-", dir="/var/tmp"))
    state_dir.chmod(0o711)
    yield NodeInputs(state_dir, private={web.server.address})
    with suppress(FileNotFoundError):
        shutil.rmtree(state_dir)
