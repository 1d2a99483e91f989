"""Files encrypted to a key, in the age format (age-encryption.org/v1): ``age -d`` opens them, too.

`pyrage` is the Python side of rage, the Rust implementation; it works on streams, so size costs no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from perak.domain.errors import InvalidInput

MAGIC = b"age-encryption.org/v1\n"
"""What an encrypted file begins with."""
CHUNK_BYTES = 2**20


class EncryptionError(InvalidInput):
    """A recipient is none, or a file does not open; the message says which and what to do."""

    code = "encryption"


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What was written: its digest (``sha256:<hex>``) and size."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Key:
    """An age identity (``AGE-SECRET-KEY-1...``), which opens what is encrypted to its ``age1...``."""

    identity: str
    recipient: str

    @classmethod
    def generate(cls) -> Key:
        from pyrage import x25519

        made = x25519.Identity.generate()
        return cls(str(made), str(made.to_public()))

    @classmethod
    def of(cls, identity: str) -> Key:
        """Raises EncryptionError."""
        return cls(identity, str(_identity(identity).to_public()))

    def __repr__(self) -> str:
        return f"Key({self.recipient})"


def check_recipient(text: str) -> str:
    """The same text. Raises EncryptionError for what nothing can be encrypted to, such as a mistyped one."""
    _recipient(text)
    return text


def encrypt(source: BinaryIO, target: BinaryIO, *, to: Sequence[str]) -> Encrypted:
    """Encrypt all of `source` to the recipients, any of whom can open it. Raises EncryptionError."""
    import pyrage

    source.seek(0)
    pyrage.encrypt_io(source, target, [_recipient(each) for each in to])
    size, hashed = target.tell(), hashlib.sha256()
    target.seek(0)
    while chunk := target.read(CHUNK_BYTES):
        hashed.update(chunk)
    return Encrypted(f"sha256:{hashed.hexdigest()}", size)


def decrypt(source: BinaryIO, target: BinaryIO, *, identity: str) -> None:
    """Write what is in `source` to `target`. Raises EncryptionError; `target` may hold a part of it then."""
    import pyrage

    source.seek(0)
    try:
        pyrage.decrypt_io(source, target, [_identity(identity)])
    except (pyrage.DecryptError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the files, not of what is in them
        raise EncryptionError(f"it does not open with this key ({error}), or it was damaged") from None


def _recipient(text: str):  # type: ignore[no-untyped-def]  # pyrage has no types
    from pyrage import RecipientError, x25519

    try:
        return x25519.Recipient.from_str(text)
    except (RecipientError, ValueError):
        raise EncryptionError(
            f"{text[:80]!r} is no age recipient; copy it again, whole (`perak keygen` shows yours)"
        ) from None


def _identity(text: str):  # type: ignore[no-untyped-def]  # as above
    from pyrage import IdentityError, x25519

    try:
        return x25519.Identity.from_str(text)
    except (IdentityError, ValueError):
        raise EncryptionError("this is no age identity (AGE-SECRET-KEY-1…)") from None
