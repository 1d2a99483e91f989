"""Secrets on their way to a node: sealed to its key for one lease, by HPKE (RFC 9180).

The exchange seals within the request of the node itself. The context (`info`) names exchange, node and lease,
so that an envelope opens for nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from perak.domain.errors import InvalidInput
from perak.wire.signing import SealKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

_values = msgspec.json.Decoder(dict[str, bytes])


class Envelope(msgspec.Struct, frozen=True):
    """The secrets of a lease, sealed: base64."""

    sealed: str


class SealError(InvalidInput):
    """An envelope does not open: it is damaged, or meant for another node or lease."""

    code = "seal"


def seal(values: Mapping[str, bytes], *, to: bytes, exchange: str, node: str, lease: str) -> Envelope:
    """Seal secrets by name to a node's public key (32 raw bytes)."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    plain = msgspec.json.encode(dict(values))
    sealed = _suite().encrypt(plain, X25519PublicKey.from_public_bytes(to), _info(exchange, node, lease))
    return Envelope(sealed=base64.b64encode(sealed).decode())


def open_sealed(answer: bytes, *, key: SealKey, exchange: str, node: str, lease: str) -> dict[str, bytes]:
    """The secrets in an encoded Envelope. Raises SealError."""
    from cryptography.exceptions import InvalidTag

    try:
        sealed = base64.b64decode(msgspec.json.decode(answer, type=Envelope).sealed, validate=True)
        return _values.decode(_suite().decrypt(sealed, key.private, _info(exchange, node, lease)))
    except (InvalidTag, ValueError, msgspec.MsgspecError):
        # Without the cause: it may hold what was opened.
        raise SealError(
            "the secrets of this lease do not open with the node's key: they were damaged on their way, or "
            "meant for another node; if it stays so, enrol the node again"
        ) from None


def _info(exchange: str, node: str, lease: str) -> bytes:
    return b"perak secrets 1\0" + b"\0".join(each.encode() for each in (exchange, node, lease))


def _suite() -> Suite:
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
