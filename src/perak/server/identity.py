"""Who this exchange is: its authority, the key that signs receipts, and the secret that seals both.

The keys are made at the first start and lie sealed in the database, so that replicas share them; the secret
that opens them is a file that never enters the database: a dump of it alone signs nothing.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from perak.adapters.db.exchange import ExchangeRow, create_exchange, load_exchange
from perak.adapters.db.upkeep import reseal, set_signing_chain
from perak.app.records import ExchangeFacts, SignedReceipt
from perak.domain.errors import Conflict, InvalidInput
from perak.domain.receipt import Json, Receipt, payload
from perak.server.settings import CURRENCY_DEFAULT, FEE_BASIS_POINTS_DEFAULT, NAME_DEFAULT, Settings
from perak.wire.identity import (
    EXCHANGE_CERT_LIFETIME,
    Authority,
    from_pem,
    issue_exchange_certificate,
    to_pem,
    verify_chain,
)
from perak.wire.passports import sign_entry
from perak.wire.receipts import sign_payload
from perak.wire.signing import SigningKey

SEED_BYTES = 32


class SecretFileError(InvalidInput):
    """The secret file is missing, unsafe, or not the one that the keys were sealed with."""

    code = "secret_file"


class Vault:
    """Seals small secrets with the secret file's first key (AES-128 and HMAC: Fernet); all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self.rotates = len(keys) > 1

    def seal(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def open(self, sealed: bytes) -> bytes:
        """Raises SecretFileError where another secret sealed it."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise SecretFileError(
                "the exchange's keys were sealed with another secret file; give --secret-file the one of the "
                "first start (by default exchange.secret in its state folder)"
            ) from None

    def reseal(self, sealed: bytes) -> bytes:
        """The same, sealed with the first key. Raises SecretFileError as `open` does."""
        self.open(sealed)
        return self._fernet.rotate(sealed)


@dataclass(frozen=True, slots=True)
class Identity:
    """The exchange's facts and keys, opened."""

    facts: ExchangeFacts
    authority: Authority
    vault: Vault
    signing_key: SigningKey
    signing_chain: tuple[bytes, ...]

    def sign_receipt(self, receipt: Receipt) -> SignedReceipt:
        """Countersign a receipt."""
        values = payload(receipt)
        return SignedReceipt(
            id=receipt.id,
            payload={name: value for name, value in values.items() if name != "evidence"},
            jws=sign_payload(values, key=self.signing_key, chain=self.signing_chain),
            energy_joules=receipt.energy.joules if receipt.energy else None,
            carbon_grams=receipt.carbon.grams if receipt.carbon else None,
        )

    def sign_passport(self, values: Mapping[str, Json]) -> str:
        """Sign an entry of a device's passport."""
        return sign_entry(values, key=self.signing_key, chain=self.signing_chain)


async def open_identity(connection: Any, settings: Settings, *, now: datetime) -> tuple[Identity, bool]:
    """The exchange's identity, made at the first start; whether this was the first start.

    Call it in a transaction, one replica at a time. Raises SecretFileError, and Conflict where the settings
    ask for what was fixed otherwise.
    """
    row = await load_exchange(connection)
    if row is not None:
        _check_fixed(row.facts, settings)
        vault = Vault(_read_secret(settings.secret_path))
        identity = _opened(row, vault)
        if vault.rotates:
            await reseal(connection, vault.reseal)
        return await _renewed(connection, identity, now=now), False
    vault = Vault(_make_secret(settings.secret_path))
    row = _new_row(settings, vault, now=now)
    created = await create_exchange(connection, row, now=now)
    assert created, "the first start is one replica's alone"
    return _opened(row, vault), True


def _check_fixed(facts: ExchangeFacts, settings: Settings) -> None:
    for option, asked, fixed in (
        ("--name", settings.name, facts.name),
        ("--currency", settings.currency, facts.currency),
        ("--fee", settings.fee_basis_points, facts.fee_basis_points),
    ):
        if asked is not None and asked != fixed:
            raise Conflict(
                f"this exchange's {option.removeprefix('--')} was fixed at its first start as {fixed!r}, and "
                f"{asked!r} is asked for now; leave out {option}, or use another database"
            )


def _new_row(settings: Settings, vault: Vault, *, now: datetime) -> ExchangeRow:
    facts = ExchangeFacts(
        name=settings.name or NAME_DEFAULT,
        currency=settings.currency or CURRENCY_DEFAULT,
        fee_basis_points=(
            FEE_BASIS_POINTS_DEFAULT if settings.fee_basis_points is None else settings.fee_basis_points
        ),
    )
    authority = Authority.create(facts.name, now=now)
    seed = secrets.token_bytes(SEED_BYTES)
    return ExchangeRow(
        facts=facts,
        ca_certificate=authority.certificate_pem.decode(),
        ca_key_sealed=vault.seal(authority.key_pem),
        signing_chain=_chain_pem(authority, SigningKey.from_seed(seed), now=now),
        signing_key_sealed=vault.seal(seed),
    )


def _opened(row: ExchangeRow, vault: Vault) -> Identity:
    authority = Authority.from_pem(row.ca_certificate.encode(), vault.open(row.ca_key_sealed))
    return Identity(
        facts=row.facts,
        authority=authority,
        vault=vault,
        signing_key=SigningKey.from_seed(vault.open(row.signing_key_sealed)),
        signing_chain=(from_pem(row.signing_chain.encode()), authority.certificate_der),
    )


async def _renewed(connection: Any, identity: Identity, *, now: datetime) -> Identity:
    """With a fresh certificate for the signing key, if half of the old one's life is over."""
    leaf = identity.signing_chain[0]
    expires = verify_chain(identity.signing_chain, at=_start(leaf)).not_after
    if expires - now > EXCHANGE_CERT_LIFETIME / 2:
        return identity
    chain = _chain_pem(identity.authority, identity.signing_key, now=now)
    await set_signing_chain(connection, chain=chain)
    return Identity(
        identity.facts,
        identity.authority,
        identity.vault,
        identity.signing_key,
        (from_pem(chain.encode()), identity.authority.certificate_der),
    )


def _start(certificate: bytes) -> datetime:
    from cryptography import x509

    return x509.load_der_x509_certificate(certificate).not_valid_before_utc


def _chain_pem(authority: Authority, key: SigningKey, *, now: datetime) -> str:
    leaf = issue_exchange_certificate(authority, public_key=key.public_bytes, now=now)
    return (to_pem(leaf) + authority.certificate_pem).decode()


def _make_secret(path: Path) -> list[bytes]:
    """The secret of this file, made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read_secret(path)
    with os.fdopen(handle, "wb") as file:
        key = Fernet.generate_key()
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return [key]


def _read_secret(path: Path) -> list[bytes]:
    """The keys of the file, a line each: the first seals, the others are those that it took the place of."""
    try:
        mode, keys = stat.S_IMODE(path.stat().st_mode), path.read_bytes().split()
    except OSError as error:
        raise SecretFileError(
            f"the secret file {path} can't be read ({error.strerror}), and the keys in this database are "
            "sealed with it; copy it from the exchange's first machine, or name it with --secret-file"
        ) from None
    if mode & 0o077:
        raise SecretFileError(f"{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")
    try:
        valid = bool(keys) and all(len(base64.urlsafe_b64decode(key)) == SEED_BYTES for key in keys)
    except ValueError:
        valid = False
    if not valid:
        raise SecretFileError(f"{path} is not a secret file of an exchange; restore it from a backup")
    return keys
