"""Signatures: Ed25519 keys, and JWS in the compact form (RFC 7515, algorithm name of RFC 9864).

A node signs its reports and an exchange its receipts with `sign`; whoever holds the 32 bytes of the public
key checks them with `verify`. `typ` says what was signed (RFC 8725, 3.11), so that a report can never pass
for a receipt. Importing this module is cheap: `cryptography` and `joserfc` load on first use.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from perak.domain.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from joserfc.jwk import OKPKey
    from joserfc.jws import CompactSignature, JWSRegistry

ALGORITHM = "Ed25519"
"""The fully specified name of RFC 9864; the older "EdDSA" is deprecated by it and refused here."""

REPORT_TYP = "perak-report+jwt"
RECEIPT_TYP = "perak-receipt+jwt"

MAX_HEADER_BYTES = 8_192
"""A chain of two certificates takes about 1.5 kB as base64 inside base64; the rest is headroom."""
MAX_PAYLOAD_BYTES = 131_072
"""A receipt is 2 kB and carries a report of about 3 kB; reports carry at most a batch of measurements."""
MAX_TOKEN_BYTES = 2 * (MAX_HEADER_BYTES + MAX_PAYLOAD_BYTES)
"""Read no further than this before any parsing: both parts in base64 with room to spare."""
CACHED_PUBLIC_KEYS = 4_096
"""Parsed public keys kept by an exchange; about 2 kB each, one per active node."""
CACHED_HEADERS = 64
"""Encoded headers kept: a process has a key or two, and signs a few kinds of token."""


_K = TypeVar("_K", "Ed25519PrivateKey", "X25519PrivateKey")


class SignatureError(InvalidInput):
    """A token, or the key to it, is not what it should be; the message says what and what to do."""

    code = "invalid_signature"


class _PrivateKey(Generic[_K]):
    """What the two kinds of key have in common: a file, and a public half."""

    def __init__(self, private: _K) -> None:
        self._private: _K = private

    def save(self, path: Path) -> None:
        """Write the key as PKCS#8 PEM, mode 0600. Raises FileExistsError: a key is never overwritten."""
        _save_private(path, self._private)

    @cached_property
    def public_bytes(self) -> bytes:
        """The 32 raw bytes of the public key."""
        return self._private.public_key().public_bytes_raw()


class SigningKey(_PrivateKey["Ed25519PrivateKey"]):
    """An Ed25519 private key: what a node or an exchange signs with."""

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the system's randomness."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key that belongs to 32 secret bytes; the same seed gives the same key (RFC 8032)."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key written by `save`. Raises SignatureError if it is unsafe or of another kind."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = _load_private(path)
        if not isinstance(private, Ed25519PrivateKey):
            raise SignatureError(f"{path} does not hold an Ed25519 key. Is it the file of another key?")
        return cls(private)

    @cached_property
    def kid(self) -> str:
        """The public key's JWK thumbprint (RFC 7638, SHA-256), which names it in JWS headers."""
        return key_id(self.public_bytes)

    def signature(self, message: bytes) -> bytes:
        """The 64 bytes of RFC 8032 over `message`."""
        return self._private.sign(message)


class SealKey(_PrivateKey["X25519PrivateKey"]):
    """An X25519 private key: what a node receives secrets with."""

    @classmethod
    def generate(cls) -> SealKey:
        """A new key from the system's randomness."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SealKey:
        """Read a key written by `save`. Raises SignatureError if it is unsafe or of another kind."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = _load_private(path)
        if not isinstance(private, X25519PrivateKey):
            raise SignatureError(f"{path} does not hold an X25519 key. Is it the file of another key?")
        return cls(private)

    @property
    def private(self) -> X25519PrivateKey:
        """The key itself, for `perak.wire.sealing`."""
        return self._private


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says about itself. Nothing in it is proven before `verify` has passed."""

    kid: str
    typ: str
    chain: tuple[bytes, ...]
    """DER certificates, the signer's first."""


def sign(key: SigningKey, payload: bytes, *, typ: str, chain: Sequence[bytes] = ()) -> str:
    """Return `payload` as a compact JWS signed by `key`, with its certificate chain (DER) if given."""
    protected = _protected(key.kid, typ, tuple(chain))
    message = protected + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=")
    signature = base64.urlsafe_b64encode(key.signature(message)).rstrip(b"=")
    return (message + b"." + signature).decode()


def verify(token: str, public_key: bytes, *, typ: str) -> bytes:
    """Return the payload of `token` if `public_key` (32 raw bytes) signed it as a `typ`.

    Raises SignatureError otherwise. The certificates in the token are not looked at: that is for
    `perak.wire.identity.verify_chain`, which yields the public key to pass here.
    """
    from joserfc import errors, jws

    _check_token(token)
    try:
        message = jws.deserialize_compact(token, _public_jwk(public_key), registry=_registry())
    except errors.BadSignatureError:
        raise SignatureError(
            f"The signature of this {typ} does not fit key {key_id(public_key)}: it was changed after "
            "signing, or another key signed it. Do not rely on it; fetch it again from its source."
        ) from None
    except (errors.JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureError(f"This is not a valid {typ}: {error}. It may be cut short or damaged.") from None
    found = message.protected.get("typ")
    if found != typ:
        raise SignatureError(f"This token is signed as {found!r}, and a {typ!r} is needed here.")
    assert message.payload is not None
    return message.payload


def peek_header(token: str) -> Header:
    """Return the header of `token` unproven, to find the key to verify it with. Raises SignatureError."""
    header = _extract(token).protected
    try:
        chain = tuple(base64.b64decode(item, validate=True) for item in header.get("x5c", ()))
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"The certificates in this token are damaged: {error}.") from None
    return Header(kid=header.get("kid", ""), typ=header.get("typ", ""), chain=chain)


def peek_payload(token: str) -> bytes:
    """Return the payload of `token` unproven, to look before verifying. Raises SignatureError."""
    payload = _extract(token).payload
    assert payload is not None
    return payload


def key_id(public_key: bytes) -> str:
    """The JWK thumbprint (RFC 7638, SHA-256, base64url) of an Ed25519 public key of 32 bytes."""
    return _public_jwk(public_key).thumbprint()


@lru_cache(maxsize=CACHED_PUBLIC_KEYS)
def _public_jwk(public_key: bytes) -> OKPKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from joserfc.jwk import OKPKey

    try:
        return OKPKey.import_key(Ed25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        raise SignatureError(
            f"An Ed25519 public key has 32 bytes, this one has {len(public_key)}. Enrol the node again."
        ) from None


@lru_cache(maxsize=CACHED_HEADERS)
def _protected(kid: str, typ: str, chain: tuple[bytes, ...]) -> bytes:
    """The first part of a token: the same of all that a key signs, and as costly as the signature."""
    from joserfc.util import json_b64encode

    header: dict[str, object] = {"alg": ALGORITHM, "kid": kid, "typ": typ}
    if chain:
        header["x5c"] = [base64.b64encode(der).decode() for der in chain]
    _registry().check_header(header)
    return json_b64encode(header)


@lru_cache(maxsize=1)
def _registry() -> JWSRegistry:
    """joserfc's rules narrowed to ours: one algorithm, four headers, and sizes that fit a chain."""
    from joserfc.jws import JWSRegistry
    from joserfc.registry import JWS_HEADER_REGISTRY

    class _Registry(JWSRegistry):
        default_header_registry = {name: JWS_HEADER_REGISTRY[name] for name in ("alg", "kid", "typ", "x5c")}  # noqa: RUF012
        max_header_length = MAX_HEADER_BYTES * 4 // 3
        max_payload_length = MAX_PAYLOAD_BYTES * 4 // 3

    return _Registry(algorithms=[ALGORITHM])


def _extract(token: str) -> CompactSignature:
    from joserfc import errors, jws

    _check_token(token)
    try:
        found = jws.extract_compact(token.encode(), registry=_registry())
        _registry().check_header(found.protected)
        if found.protected["alg"] != ALGORITHM:
            raise ValueError(f"its algorithm is {found.protected['alg']!r}, only {ALGORITHM!r} is accepted")
    except (errors.JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SignatureError(
            f"This is not a signed token: {error}. It may be cut short or damaged."
        ) from None
    return found


def _check_token(token: str) -> None:
    if len(token) > MAX_TOKEN_BYTES:
        raise SignatureError(
            f"A token of {len(token):,} bytes is too long: at most {MAX_TOKEN_BYTES:,} are read."
        )
    if not token.isascii():
        raise SignatureError("This is not a signed token: it holds characters outside ASCII.")


def _save_private(path: Path, private: Ed25519PrivateKey | X25519PrivateKey) -> None:
    """Write a whole file or none: a temporary one beside it, linked into place."""
    from cryptography.hazmat.primitives import serialization

    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp sets mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _load_private(path: Path) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SignatureError(
            f"{path} can be read by others (mode {mode:04o}), so its key may be known to them. "
            f"If nobody else has read it: chmod 600 {path}"
        )
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"{path} does not hold a private key in PEM form: {error}") from None
