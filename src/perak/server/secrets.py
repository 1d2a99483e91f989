"""Secrets at rest: sealed by the exchange's vault, each for its owner and name."""

from __future__ import annotations

from perak.adapters.db.secrets import SealedSecret
from perak.server.identity import Vault


def sealed_for(vault: Vault, value: bytes, *, owner: str, name: str) -> bytes:
    """What is kept. Owner (a project or a job) and name are sealed with it: a moved row opens no more."""
    return vault.seal(_label(owner, name) + value)


def unsealed(vault: Vault, secret: SealedSecret) -> bytes:
    """The value. Raises SecretFileError where another secret file sealed it."""
    label, plain = _label(secret.owner, secret.name), vault.open(secret.sealed)
    if not plain.startswith(label):
        raise AssertionError(f"the secret {secret.name} of {secret.owner} was sealed for another")
    return plain.removeprefix(label)


def _label(owner: str, name: str) -> bytes:
    return f"{owner}\0{name}\0".encode()
