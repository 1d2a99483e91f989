"""Settlements, of many runs at once: all that they read in one statement, and all that they write in another.

Every statement is a way to the database and back, and that is most of what a settlement alone costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from perak.adapters.db.leases import from_ms
from perak.adapters.db.ledger import TRANSFERS, settlement_transfers, transfer_columns
from perak.app.records import Accounts, Engagement, HeldFunds, SettledRun, SettlementFacts
from perak.domain.offer import OfferAsk

ASKS_KEPT = 256
"""Decoded asks that are kept: all settlements of an offer read the same one, until its node posts another."""

FACTS = """
select lease.id, offer.ask::text as ask_text, held.ids, held.amounts,
    wallet.id as wallet, escrow.id as escrow, earnings.id as earnings, fees.id as fees
from lease
    join offer on offer.id = lease.offer_id
    join account wallet on wallet.kind = 'wallet' and wallet.project_id = lease.project_id
    join account escrow on escrow.kind = 'escrow'
    join account earnings on earnings.kind = 'earnings' and earnings.project_id = lease.provider_project_id
    join account fees on fees.kind = 'fees'
    cross join lateral (
        select array_agg(hold.id order by hold.id) as ids, array_agg(hold.amount order by hold.id) as amounts
        from transfer hold
        where hold.job_id = lease.job_id and hold.phase = 'pending'
            and not exists (select from transfer done where done.pending_id = hold.id)
    ) held
where lease.id = any ($1)
"""

WRITE = f"""
with moved as ({TRANSFERS}
), ended as materialized (
    select * from unnest($10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
        $16::timestamptz[], $17::int[], $18::text[], $19::text[], $20::bigint[], $21::text[],
        $22::timestamptz[], $23::text[], $24::text[], $25::text[], $26::bool[], $27::text[])
    as ended (job, run, lease, offer, lease_state, run_state, until, exit_code, cause, detail, cost, outputs,
        started_at, evidence_jws, job_state, reason, job_ended, node)
), ended_lease as (
    update lease set state = ended.lease_state, ended_at = $1 from ended where lease.id = ended.lease
), freed as (
    update device set lease_id = null from ended
    where device.offer_id = ended.offer and device.lease_id = ended.lease
), ended_run as (
    update run set state = ended.run_state, ended_at = ended.until, exit_code = ended.exit_code,
        cause = ended.cause, detail = ended.detail, cost = ended.cost, outputs = ended.outputs::jsonb,
        started_at = coalesce(run.started_at, ended.started_at), evidence_until = ended.until,
        evidence_jws = coalesce(ended.evidence_jws, run.evidence_jws)
    from ended where run.id = ended.run
), receipted as (
    insert into receipt (issued_at, id, project_id, provider_project_id, job_id, run_id, cost, energy_joules,
        carbon_grams, payload, jws)
    select $1, signed.* from unnest($28::text[], $29::text[], $30::text[], $31::text[], $32::text[],
        $33::bigint[], $34::float8[], $35::float8[], $36::jsonb[], $37::text[]) as signed
), stepped as (
    update job set state = ended.job_state, reason = ended.reason, exit_code = ended.exit_code,
        ended_at = case when ended.job_ended then $1 end,
        avoid = case when ended.job_ended then avoid else array_append(avoid, ended.node) end
    from ended where job.id = ended.job
)
insert into job_event (job_id, at, kind, detail)
select job, $1, 'state', job_state || coalesce(': ' || reason, '') from ended
"""
"""$1 to $9 are those of TRANSFERS. Offers take their parts back at the commit (schema, lease_gives_back)."""
ENDED_COLUMNS = 18
RECEIPT_COLUMNS = 10


class PgSettlements:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def facts(self, of: Sequence[Engagement]) -> list[SettlementFacts]:
        rows = await self._db.fetch(FACTS, [at.lease.id for at in of])
        found = {row["id"]: _facts(row) for row in rows}
        return [found[at.lease.id] for at in of]

    async def write(self, settled: Sequence[SettledRun], *, now: datetime) -> None:
        ordered = sorted(settled, key=lambda one: one.facts.accounts.wallet)
        await self._db.execute(
            WRITE,
            now,
            *transfer_columns([part for one in ordered for part in settlement_transfers(one)]),
            *_columns((_ended(one) for one in ordered), ENDED_COLUMNS),
            *_columns((_receipt(one) for one in ordered if one.receipt), RECEIPT_COLUMNS),
        )


def _facts(row: Any) -> SettlementFacts:
    held = zip(row["ids"] or (), row["amounts"] or (), strict=True)
    return SettlementFacts(
        held=tuple(HeldFunds(transfer=id, amount=amount) for id, amount in held),
        accounts=Accounts(
            wallet=row["wallet"], escrow=row["escrow"], earnings=row["earnings"], fees=row["fees"]
        ),
        ask=_ask(row["ask_text"]),
    )


@lru_cache(maxsize=ASKS_KEPT)
def _ask(text: str) -> OfferAsk:
    return msgspec.json.decode(text, type=OfferAsk)


def _columns(rows: Iterable[tuple[object, ...]], count: int) -> list[list[object]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(count)]


def _ended(settled: SettledRun) -> tuple[object, ...]:
    at, end = settled.at, settled.end
    return (
        at.job.id,
        at.run.id,
        at.lease.id,
        at.lease.offer,
        settled.lease_state,
        settled.run_state,
        from_ms(end.until_ms),
        end.exit_code,
        end.cause,
        end.detail,
        settled.money.cost,
        None if end.outputs is None else msgspec.json.encode(end.outputs).decode(),
        None if end.started_at_ms is None else from_ms(end.started_at_ms),
        end.evidence_jws,
        settled.job_state,
        settled.reason,
        settled.job_ended,
        at.lease.node,
    )


def _receipt(settled: SettledRun) -> tuple[object, ...]:
    at, signed = settled.at, settled.receipt
    assert signed is not None
    return (
        signed.id,
        at.lease.project,
        at.lease.provider,
        at.job.id,
        at.run.id,
        settled.money.cost,
        signed.energy_joules,
        signed.carbon_grams,
        signed.payload,
        signed.jws,
    )
