"""The exchange's own row: its name, currency, fee, and sealed keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perak.app.records import ExchangeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRow:
    """What is fixed at the first start. The sealed keys open with the exchange's secret file."""

    facts: ExchangeFacts
    ca_certificate: str
    ca_key_sealed: bytes
    signing_chain: str
    signing_key_sealed: bytes


async def load_exchange(connection: Any) -> ExchangeRow | None:
    """The exchange's row, or None before the first start."""
    row = await connection.fetchrow("select * from exchange")
    if row is None:
        return None
    return ExchangeRow(
        facts=ExchangeFacts(
            name=row["name"], currency=row["currency"], fee_basis_points=row["fee_basis_points"]
        ),
        ca_certificate=row["ca_certificate"],
        ca_key_sealed=row["ca_key_sealed"],
        signing_chain=row["signing_chain"],
        signing_key_sealed=row["signing_key_sealed"],
    )


async def create_exchange(connection: Any, new: ExchangeRow, *, now: datetime) -> bool:
    """Write the row at the first start; False where another replica was faster."""
    created = await connection.fetchval(
        """insert into exchange (name, currency, fee_basis_points, ca_certificate, ca_key_sealed,
            signing_chain, signing_key_sealed, created_at, alive_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
        on conflict do nothing returning true""",
        new.facts.name,
        new.facts.currency,
        new.facts.fee_basis_points,
        new.ca_certificate,
        new.ca_key_sealed,
        new.signing_chain,
        new.signing_key_sealed,
        now,
    )
    return bool(created)
