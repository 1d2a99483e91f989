"""Who this node is: its keys, its certificate, and how it becomes a node.

First contact is safe because the invite carries the fingerprint of the exchange's authority: the authority's
certificate is fetched without trust (``GET /v1/exchange``, nothing is sent), compared with the fingerprint,
and from then on the only one that TLS accepts, for the enrolment too. The system's own authorities are not
asked. Over plain http (loopback, or a network that is trusted) only the fingerprint is compared.
"""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from perak.domain.errors import InvalidInput, Unavailable
from perak.domain.report import Body, Evidence
from perak.wire.invite import Invite
from perak.wire.session import (
    HELLO_TYPE,
    REPORT_TYPE,
    REQUEST_TYPE,
    HelloBody,
    RequestPayload,
    encode,
    encode_report,
)
from perak.wire.signing import SealKey, SigningKey, sign

_T = TypeVar("_T")

ANSWER_BYTES_MAX = 256 * 1024
"""An answer about the exchange or an enrolment has some 5 kB."""
SIGN_KEY, SEAL_KEY, NODE, CHAIN, AUTHORITY = "sign.key", "seal.key", "node.json", "chain.pem", "ca.pem"


class EnrolmentFailed(InvalidInput):
    """This machine could not become a node; the message says what to do."""

    code = "enrolment_failed"


class NodeFile(msgspec.Struct, frozen=True):
    """node.json: what the enrolment gave."""

    node: str
    exchange: str
    url: str


class _Exchange(msgspec.Struct):
    name: str
    ca_fingerprint: str
    ca_certificate: str


class _Enrolled(msgspec.Struct):
    node: str
    exchange: str
    certificate_chain: str


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


@dataclass(slots=True)
class Identity:
    """The node's name, keys and certificate. `chain` (DER, node first) changes when it is renewed."""

    node: str
    exchange: str
    url: str
    state_dir: Path
    key: SigningKey
    chain: tuple[bytes, ...]
    tls: ssl.SSLContext | None
    """None over plain http."""

    def sign_report(self, seq: int, at: int, body: Body) -> str:
        """The JWS of a report. What is shown to others carries the chain: a run's last report,
        as the node may be lost before it each of its meter's, and checklists."""
        payload = encode_report(seq=seq, node=self.node, at=at, body=body)
        chain = self.chain if isinstance(body, Evidence) else ()
        return sign(self.key, payload, typ=REPORT_TYPE, chain=chain)

    def sign_hello(self, *, nonce: str, agent_id: str, version: str, at: int) -> str:
        hello = HelloBody(
            nonce=nonce, node=self.node, agent_version=version, boot_id=boot_id(), agent_id=agent_id, at=at
        )
        return sign(self.key, encode(hello), typ=HELLO_TYPE, chain=self.chain)

    def sign_request(self, method: str, path: str, *, at: int) -> str:
        """The value of an Authorization header."""
        payload = encode(RequestPayload(node=self.node, method=method, path=path, at=at))
        return f"Node {sign(self.key, payload, typ=REQUEST_TYPE)}"

    def open_secrets(self, answer: bytes, *, lease: str) -> dict[str, bytes]:
        """The secrets of a lease, from what the exchange sealed for this node. Raises SealError."""
        from perak.wire.sealing import open_sealed

        key = SealKey.load(self.state_dir / SEAL_KEY)
        return open_sealed(answer, key=key, exchange=self.exchange, node=self.node, lease=lease)

    def renew(self, chain_pem: str) -> None:
        """Use a fresh certificate; one that isn't for this node's key is refused with InvalidInput."""
        chain = _chain(chain_pem)
        _check_chain(chain, self.key, self.node)
        self.chain = chain

    def keep_certificate(self) -> None:
        """Write the certificate that is in use to the state folder."""
        _write(self.state_dir / CHAIN, b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in self.chain))


def load(state_dir: Path, *, url: str | None = None) -> Identity | None:
    """The identity in `state_dir`, None if this machine is no node yet. `url`: where the exchange is now."""
    try:
        node = msgspec.json.decode((state_dir / NODE).read_bytes(), type=NodeFile)
    except FileNotFoundError:
        return None
    address = (url or node.url).rstrip("/")
    return Identity(
        node=node.node,
        exchange=node.exchange,
        url=address,
        state_dir=state_dir,
        key=SigningKey.load(state_dir / SIGN_KEY),
        chain=_chain((state_dir / CHAIN).read_text()),
        tls=_trusting((state_dir / AUTHORITY).read_text()) if address.startswith("https:") else None,
    )


def enrol(
    state_dir: Path, invite: Invite, *, name: str, timeout_seconds: float, url: str | None = None
) -> Identity:
    """Make this machine a node. A repeat after a cut is harmless: the exchange gives the same answer again.

    Raises EnrolmentFailed, or Unavailable where trying again later can help.
    """
    address = (url or invite.url).rstrip("/")
    authority = _authority(address, invite.fingerprint, timeout_seconds)
    key, seal = _keys(state_dir)
    wish = {
        "secret": invite.secret,
        "name": name,
        "sign_key": _base64url(key.public_bytes),
        "seal_key": _base64url(seal.public_bytes),
    }
    answer = _exchange_json(
        address,
        "POST",
        "/v1/enrol",
        tls=_trusting(authority) if address.startswith("https:") else None,
        timeout_seconds=timeout_seconds,
        body=msgspec.json.encode(wish),
        # The same key and invite make the same request, so its replay is answered, not refused.
        headers={"Idempotency-Key": f"enrol-{key.kid}"},
    )
    enrolled = _decoded(answer, _Enrolled)
    _check_chain(_chain(enrolled.certificate_chain), key, enrolled.node)
    _write(state_dir / AUTHORITY, authority.encode())
    _write(state_dir / CHAIN, enrolled.certificate_chain.encode())
    node = NodeFile(node=enrolled.node, exchange=enrolled.exchange, url=address)
    _write(state_dir / NODE, msgspec.json.encode(node))  # Last: with it, this machine is a node.
    found = load(state_dir)
    assert found is not None
    return found


def boot_id() -> str:
    """Changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def connection(
    url: str, *, tls: ssl.SSLContext | None, timeout_seconds: float
) -> tuple[http.client.HTTPConnection, str]:
    """An HTTP connection to `url`, not yet open, and the path that `url` ends with."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = tls or ssl.create_default_context()
        secure = http.client.HTTPSConnection(host, parts.port, timeout=timeout_seconds, context=context)
        return secure, parts.path.rstrip("/")
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_seconds), parts.path.rstrip("/")


def problem(answer: bytes, status: int) -> str:
    """What an error answer says, for people."""
    try:
        found = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"status {status}"
    return found.detail or found.title or f"status {status}"


def _authority(url: str, fingerprint: str, timeout_seconds: float) -> str:
    """The authority's certificate (PEM), proven by the invite's fingerprint."""
    untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    untrusting.check_hostname = False
    untrusting.verify_mode = ssl.CERT_NONE  # Only the authority is fetched, and its fingerprint compared.
    answer = _exchange_json(url, "GET", "/v1/exchange", tls=untrusting, timeout_seconds=timeout_seconds)
    pem = _decoded(answer, _Exchange).ca_certificate
    # Imported late: parsing certificates takes some 8 MiB, and only an enrolment needs it.
    from perak.wire.identity import fingerprint as fingerprint_of

    if not secrets.compare_digest(fingerprint_of(pem.encode()), fingerprint):
        raise EnrolmentFailed(
            f"{url} is not the exchange that this invite is for: its authority has another fingerprint. "
            "Somebody may be in between, or the exchange was set up anew. Ask the operator for a new invite."
        )
    return pem


def _exchange_json(
    url: str,
    method: str,
    path: str,
    *,
    tls: ssl.SSLContext | None,
    timeout_seconds: float,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    link, prefix = connection(url, tls=tls, timeout_seconds=timeout_seconds)
    try:
        link.request(method, prefix + path, body, {"Content-Type": "application/json"} | (headers or {}))
        response = link.getresponse()
        answer = response.read(ANSWER_BYTES_MAX)
    except ssl.SSLCertVerificationError as error:
        raise EnrolmentFailed(
            f"{url} shows a certificate that its authority did not issue: {error.verify_message}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"The exchange at {url} can't be reached: {error}. Is it running?") from None
    finally:
        link.close()
    if response.status >= 500:
        raise Unavailable(f"The exchange at {url} can't answer now: {problem(answer, response.status)}")
    if response.status >= 400:
        raise EnrolmentFailed(f"The exchange refused: {problem(answer, response.status)}")
    return answer


def _decoded(answer: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise EnrolmentFailed(
            f"This does not answer as a Perak exchange does: {error}. Check the URL."
        ) from None


def _keys(state_dir: Path) -> tuple[SigningKey, SealKey]:
    """The node's keys, made when they are first needed and never again."""
    if not (state_dir / SIGN_KEY).exists():
        SigningKey.generate().save(state_dir / SIGN_KEY)
    if not (state_dir / SEAL_KEY).exists():
        SealKey.generate().save(state_dir / SEAL_KEY)
    return SigningKey.load(state_dir / SIGN_KEY), SealKey.load(state_dir / SEAL_KEY)


def _check_chain(chain: tuple[bytes, ...], key: SigningKey, node: str) -> None:
    """That the certificate is for this node's own key and name. Raises InvalidInput."""
    from perak.wire.identity import verify_chain

    proven = verify_chain(chain, at=datetime.fromtimestamp(time.time(), UTC))
    if proven.subject_id != node or proven.public_key != key.public_bytes:
        raise EnrolmentFailed(f"The exchange sent a certificate of {proven.subject_id}, this node is {node}.")


def _chain(pem: str) -> tuple[bytes, ...]:
    """The certificates of a PEM text as DER, without parsing them."""
    ends = "-----END CERTIFICATE-----"
    parts = [part.strip() + "\n" + ends for part in pem.split(ends) if "BEGIN CERTIFICATE" in part]
    return tuple(ssl.PEM_cert_to_DER_cert(part) for part in parts)


def _trusting(authority_pem: str) -> ssl.SSLContext:
    """TLS that accepts certificates of this one authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority_pem)
    return context


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _write(path: Path, content: bytes) -> None:
    """The whole file or none, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
