"""Receipts, append-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from perak.app.records import SignedReceipt
from perak.domain.receipt import Receipt


class PgReceipts:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def insert(self, signed: SignedReceipt, receipt: Receipt, *, now: datetime) -> None:
        await self._db.execute(
            """insert into receipt (id, project_id, provider_project_id, job_id, run_id, issued_at, cost,
                energy_joules, carbon_grams, payload, jws)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            signed.id,
            receipt.project,
            receipt.provider,
            receipt.job,
            receipt.run,
            now,
            receipt.cost_micros,
            signed.energy_joules,
            signed.carbon_grams,
            signed.payload,
            signed.jws,
        )
