"""Settlements: all that one reads in one statement, and all that one writes in another.

Every statement is a way to the database and back, and that is most of what a settlement costs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perak.adapters.db.leases import from_ms
from perak.adapters.db.ledger import TRANSFERS, settlement_transfers, transfer_columns
from perak.app.records import Accounts, Engagement, HeldFunds, SettledRun, SettlementFacts
from perak.domain.offer import OfferAsk

_ask_decoder = msgspec.json.Decoder(OfferAsk)

FACTS = """
select offer.ask::text as ask_text, held.ids, held.amounts,
    wallet.id as wallet, escrow.id as escrow, earnings.id as earnings, fees.id as fees
from offer
    join account wallet on wallet.kind = 'wallet' and wallet.project_id = $2
    join account escrow on escrow.kind = 'escrow'
    join account earnings on earnings.kind = 'earnings' and earnings.project_id = $3
    join account fees on fees.kind = 'fees'
    cross join lateral (
        select array_agg(hold.id order by hold.id) as ids, array_agg(hold.amount order by hold.id) as amounts
        from transfer hold
        where hold.job_id = $4 and hold.phase = 'pending'
            and not exists (select from transfer done where done.pending_id = hold.id)
    ) held
where offer.id = $1
"""

WRITE = f"""
with moved as ({TRANSFERS}
), ended_lease as (
    update lease set state = $10, ended_at = $1 where id = $11
), freed as (
    update device set lease_id = null where offer_id = $12 and lease_id = $11
), ended_run as (
    update run set state = $13, ended_at = $14, exit_code = $15, cause = $16, detail = $17, cost = $18,
        outputs = $19, started_at = coalesce(run.started_at, $20), evidence_until = $14,
        evidence_jws = coalesce($21, evidence_jws)
    where id = $3
), receipted as (
    insert into receipt (id, project_id, provider_project_id, job_id, run_id, issued_at, cost, energy_joules,
        carbon_grams, payload, jws)
    select $22, $23, $24, $2, $3, $1, $18, $25, $26, $27, $28 where $22::text is not null
), stepped as (
    update job set state = $29, reason = $30, exit_code = $15, ended_at = case when $31 then $1 end,
        avoid = case when $31 then avoid else array_append(avoid, $32) end
    where id = $2
)
insert into job_event (job_id, at, kind, detail)
values ($2, $1, 'state', $29 || coalesce(': ' || $30, ''))
"""
"""$1 to $9 are those of TRANSFERS. The offer takes its part back at the commit (schema, lease_gives_back)."""


class PgSettlements:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def facts(self, at: Engagement) -> SettlementFacts:
        row = await self._db.fetchrow(FACTS, at.lease.offer, at.lease.project, at.lease.provider, at.job.id)
        assert row is not None, "a lease is part of an offer, and every project has its accounts"
        held = zip(row["ids"] or (), row["amounts"] or (), strict=True)
        return SettlementFacts(
            held=tuple(HeldFunds(transfer=id, amount=amount) for id, amount in held),
            accounts=Accounts(
                wallet=row["wallet"], escrow=row["escrow"], earnings=row["earnings"], fees=row["fees"]
            ),
            ask=_ask_decoder.decode(row["ask_text"]),
        )

    async def write(self, settled: SettledRun, *, now: datetime) -> None:
        at, end, signed = settled.at, settled.end, settled.receipt
        transfers = settlement_transfers(settled.facts, settled.money, keep=not settled.job_ended)
        await self._db.execute(
            WRITE,
            now,
            at.job.id,
            at.run.id,
            *transfer_columns(transfers),
            settled.lease_state,
            at.lease.id,
            at.lease.offer,
            settled.run_state,
            from_ms(end.until_ms),
            end.exit_code,
            end.cause,
            end.detail,
            settled.money.cost,
            end.outputs,
            None if end.started_at_ms is None else from_ms(end.started_at_ms),
            end.evidence_jws,
            signed and signed.id,
            at.lease.project,
            at.lease.provider,
            signed and signed.energy_joules,
            signed and signed.carbon_grams,
            signed and signed.payload,
            signed and signed.jws,
            settled.job_state,
            settled.reason,
            settled.job_ended,
            at.lease.node,
        )
