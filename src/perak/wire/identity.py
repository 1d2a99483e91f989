"""Who signed: X.509 certificates (RFC 5280) that an exchange issues to its nodes and to itself.

A chain has two certificates, the holder's and the exchange's authority; its root is trusted by fingerprint,
which an invite carries. Names are URIs in the subjectAltName: ``perak:node:<id>``, ``perak:exchange:<name>``.
Holders have Ed25519 keys. The authority itself has a P-256 key, because browsers and some TLS libraries
refuse server certificates that Ed25519 signed. `cryptography` loads on first use.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from perak.domain.errors import InvalidInput
from perak.domain.ids import EXCHANGE_NAME, check_id

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

AUTHORITY_LIFETIME = timedelta(days=3650)
"""Receipts stay verifiable at their own time for good; ten years spares small operators a rollover."""
NODE_CERT_LIFETIME = timedelta(hours=24)
"""Short, because there is no revocation list: a node that is thrown out is out within a day."""
EXCHANGE_CERT_LIFETIME = timedelta(days=365)
SERVER_CERT_LIFETIME = timedelta(days=365)
"""Below the 398 days that browsers accept at most."""
CLOCK_SKEW = timedelta(minutes=5)
"""Certificates start this much in the past, so that a holder whose clock is behind can use them at once."""

CHAIN_LENGTH = 2
MAX_CERTIFICATE_BYTES = 4_096
"""Ours have about 500 bytes; a server's with many names some more."""

_NODE_PREFIX = "perak:node:"
_EXCHANGE_PREFIX = "perak:exchange:"

Kind = Literal["node", "exchange"]


class IdentityError(InvalidInput):
    """A certificate or a chain does not prove what is needed; the message says why and what to do."""

    code = "invalid_identity"


class CertificateExpired(IdentityError):
    """A certificate's life was over; a holder that proves its key gets one that covers that time too."""

    code = "certificate_expired"


@dataclass(frozen=True, slots=True)
class Authority:
    """The exchange's certificate authority: what turns a public key into an identity."""

    exchange: str
    certificate: x509.Certificate
    _key: EllipticCurvePrivateKey

    @classmethod
    def create(cls, exchange: str, *, now: datetime) -> Authority:
        """A new authority with a new key, for AUTHORITY_LIFETIME. Raises IdentityError on a bad name."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        if not EXCHANGE_NAME.match(exchange):
            raise IdentityError(
                f"{exchange[:80]!r} can't name an exchange: use up to 31 of a-z, 0-9 and -, a letter first."
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Perak authority of {exchange}")
        builder = _builder(key.public_key(), name, now - CLOCK_SKEW, now + AUTHORITY_LIFETIME).issuer_name(
            name
        )
        builder = builder.add_extension(_uri_names(_EXCHANGE_PREFIX + exchange), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        return cls(exchange, _sign(builder, key, key), key)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> Authority:
        """The authority that `certificate_pem` and `key_pem` were. Raises IdentityError if they don't fit."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise IdentityError(f"The authority's certificate or key is damaged: {error}") from None
        if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise IdentityError("The authority's key does not belong to its certificate. Restore the pair.")
        kind, name = _subject(certificate)
        if kind != "exchange":
            raise IdentityError(f"The authority's certificate names the {kind} {name}, not an exchange.")
        return cls(name, certificate, key)

    @property
    def certificate_der(self) -> bytes:
        return _der(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        return to_pem(self.certificate_der)

    @property
    def key_pem(self) -> bytes:
        """The secret key as PKCS#8 PEM; whoever holds it is the exchange."""
        return _private_pem(self._key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate_der)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a TLS server needs: its certificate with the authority's behind it, and its key, as PEM."""

    chain_pem: bytes
    key_pem: bytes


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """Who a chain proves its holder to be."""

    subject_id: str
    """The id of a node, or the name of an exchange."""
    kind: Kind
    exchange: str
    """The name of the exchange that issued it."""
    public_key: bytes
    """The holder's Ed25519 key, 32 raw bytes."""
    root_fingerprint: str
    not_before: datetime
    not_after: datetime


def issue_node_certificate(
    authority: Authority,
    *,
    node_id: str,
    public_key: bytes,
    now: datetime,
    lifetime: timedelta = NODE_CERT_LIFETIME,
    since: datetime | None = None,
) -> bytes:
    """A node's certificate as DER. Raises InvalidInput on an id that is no node's of this exchange.

    `since`: when it begins, for a node that was cut off beyond its old one's end; by default now.
    """
    check_id(node_id, "node")
    if _exchange_of_node(node_id) != authority.exchange:
        raise IdentityError(f"{node_id} belongs to another exchange than {authority.exchange}.")
    start = now - CLOCK_SKEW if since is None else since
    return _issue(authority, _NODE_PREFIX + node_id, public_key, start, now + lifetime)


def issue_exchange_certificate(
    authority: Authority, *, public_key: bytes, now: datetime, lifetime: timedelta = EXCHANGE_CERT_LIFETIME
) -> bytes:
    """The certificate, as DER, of the key that an exchange signs receipts with."""
    start = now - CLOCK_SKEW
    return _issue(authority, _EXCHANGE_PREFIX + authority.exchange, public_key, start, now + lifetime)


def issue_server_certificate(
    authority: Authority, *, hosts: Sequence[str], now: datetime, lifetime: timedelta = SERVER_CERT_LIFETIME
) -> ServerCertificate:
    """A TLS certificate and a new P-256 key for `hosts`: names, or addresses without brackets."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    if not hosts:
        raise IdentityError("A server certificate needs at least one host name or address.")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf_builder(authority, key.public_key(), "Perak server", now - CLOCK_SKEW, now + lifetime)
    builder = builder.add_extension(_host_names(hosts), critical=False)
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = _sign(builder.add_extension(usage, critical=False), key, authority._key)
    return ServerCertificate(to_pem(_der(certificate)) + authority.certificate_pem, _private_pem(key))


def verify_chain(
    chain: Sequence[bytes], *, at: datetime, trusted_fingerprint: str | None = None
) -> VerifiedChain:
    """Who the holder of `chain` (DER, the holder's first, then the authority's) was at the time `at`.

    Without `trusted_fingerprint` the chain proves only that it agrees with itself: compare the
    `root_fingerprint` of the answer with one that came another way. Raises IdentityError.
    """
    if len(chain) != CHAIN_LENGTH:
        raise IdentityError(
            f"A chain has {CHAIN_LENGTH} certificates, holder and authority; here: {len(chain)}."
        )
    leaf, root = (_parse(der) for der in chain)
    root_fingerprint = fingerprint(chain[1])
    if trusted_fingerprint is not None and root_fingerprint != trusted_fingerprint:
        raise IdentityError(
            f"The chain ends at the authority {root_fingerprint}, and {trusted_fingerprint} is trusted: "
            "it belongs to another exchange."
        )
    _check_authority(root)
    _check_issued(leaf, root)
    for certificate, what in ((root, "authority's"), (leaf, "holder's")):
        _check_time(certificate, what, at)
    _, exchange = _subject(root, needed="exchange")
    kind, subject_id = _subject(leaf)
    if (_exchange_of_node(subject_id) if kind == "node" else subject_id) != exchange:
        raise IdentityError(f"The authority of {exchange} has no right to name the {kind} {subject_id}.")
    return VerifiedChain(
        subject_id,
        kind,
        exchange,
        _ed25519_bytes(leaf),
        root_fingerprint,
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
    )


def starts_at(certificate: bytes) -> datetime:
    """When a certificate (DER) becomes valid. Raises IdentityError."""
    return _parse(certificate).not_valid_before_utc


def fingerprint(certificate: bytes) -> str:
    """``sha256:<64 hex digits>`` of a certificate, DER or PEM. Raises IdentityError on other PEM."""
    if certificate.startswith(b"-----BEGIN"):
        certificate = from_pem(certificate)
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"


def to_pem(certificate_der: bytes) -> bytes:
    """The same certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return _parse(certificate_der).public_bytes(Encoding.PEM)


def from_pem(certificate_pem: bytes) -> bytes:
    """The first certificate of a PEM text as DER. Raises IdentityError."""
    from cryptography import x509

    try:
        return _der(x509.load_pem_x509_certificate(certificate_pem))
    except ValueError:
        raise IdentityError("This is not a certificate in PEM form.") from None


def chain_to_pem(chain: Sequence[bytes]) -> str:
    """A chain of DER certificates as one PEM text, in the same order."""
    return "".join(to_pem(der).decode() for der in chain)


def chain_from_pem(text: str) -> tuple[bytes, ...]:
    """The certificates of a PEM text as DER, unproven, in the same order. Raises IdentityError."""
    from cryptography import x509

    try:
        return tuple(_der(certificate) for certificate in x509.load_pem_x509_certificates(text.encode()))
    except ValueError:
        raise IdentityError("This is not a chain of certificates in PEM form.") from None


def _issue(authority: Authority, uri: str, public_key: bytes, start: datetime, end: datetime) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        holder = Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        raise IdentityError(f"An Ed25519 public key has 32 bytes, this one has {len(public_key)}.") from None
    kind = "node" if uri.startswith(_NODE_PREFIX) else "exchange"
    builder = _leaf_builder(authority, holder, f"Perak {kind}", start, end)
    builder = builder.add_extension(_uri_names(uri), critical=False)
    return _der(_sign(builder, holder, authority._key))


def _leaf_builder(
    authority: Authority, public_key: CertificatePublicKeyTypes, name: str, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    issuer = authority.certificate
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(public_key, _name(name), start, min(end, issuer.not_valid_after_utc))
    return (
        builder.issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    )


def _builder(
    public_key: CertificatePublicKeyTypes, subject: x509.Name, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    assert start.tzinfo is not None, "times are aware"
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start.astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
    )


def _sign(
    builder: x509.CertificateBuilder,
    subject: CertificatePublicKeyTypes | EllipticCurvePrivateKey,
    issuer: EllipticCurvePrivateKey,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    public = subject.public_key() if isinstance(subject, EllipticCurvePrivateKey) else subject
    key_id = x509.SubjectKeyIdentifier.from_public_key(public)
    return builder.add_extension(key_id, critical=False).sign(issuer, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, common_name)])


def _uri_names(uri: str) -> x509.SubjectAlternativeName:
    from cryptography import x509

    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _host_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if not host.isascii():
                raise IdentityError(f"Write the host name {host!r} in its ASCII form (xn--…).") from None
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _parse(der: bytes) -> x509.Certificate:
    from cryptography import x509

    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError(
            f"A certificate of {len(der):,} bytes is too long: at most {MAX_CERTIFICATE_BYTES:,}."
        )
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError(f"This is not a certificate: {error}. It may be cut short or damaged.") from None


def _check_authority(root: x509.Certificate) -> None:
    from cryptography import x509

    try:
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise IdentityError("The chain does not end at a certificate authority.") from None
    if not (constraints.ca and usage.key_cert_sign):
        raise IdentityError("The chain does not end at a certificate authority.")
    _check_issued(root, root)


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise IdentityError(
            "The certificate was not issued by the authority beside it: the chain is forged or mixed up."
        ) from None


def _check_time(certificate: x509.Certificate, what: str, at: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= at <= end:
        raise (CertificateExpired if at > end else IdentityError)(
            f"The {what} certificate is valid from {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC, "
            f"not at {at.astimezone(UTC):%Y-%m-%d %H:%M:%S}. Check the clocks, or renew the certificate."
        )


def _subject(certificate: x509.Certificate, *, needed: Kind | None = None) -> tuple[Kind, str]:
    """The kind and name that the certificate's one URI gives its holder."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        uris = []
    if len(uris) == 1 and uris[0].startswith(_NODE_PREFIX) and needed != "exchange":
        return "node", check_id(uris[0].removeprefix(_NODE_PREFIX), "node")
    if len(uris) == 1 and uris[0].startswith(_EXCHANGE_PREFIX):
        return "exchange", uris[0].removeprefix(_EXCHANGE_PREFIX)
    raise IdentityError("The certificate names no node or exchange of Perak: it was made for something else.")


def _exchange_of_node(node_id: str) -> str:
    return node_id.rpartition("@")[2]


def _ed25519_bytes(certificate: x509.Certificate) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public_key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        public_key = None
    if not isinstance(public_key, Ed25519PublicKey):
        raise IdentityError("The certificate's key is not an Ed25519 key, and signatures here need one.")
    return public_key.public_bytes_raw()


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _private_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
