"""Settlements, of many runs at once: all that they read in one statement, and all that they write in another.

Every statement is a way to the database and back, and that is most of what a settlement alone costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from perak.adapters.db.grid import sighting_of
from perak.adapters.db.leases import from_ms
from perak.adapters.db.ledger import TRANSFERS, UNRESOLVED, NewTransfer, settlement_transfers
from perak.app.records import Accounts, Engagement, HeldFunds, SettledRun, SettlementFacts, SignedReceipt
from perak.domain.offer import OfferAsk
from perak.domain.whereabouts import judge

ASKS_KEPT = 256
"""Decoded asks that are kept: all settlements of an offer read the same one, until its node posts another."""

FACTS = f"""
select lease.id, offer.ask::text as ask_text, node.sighting::text as sighting_text,
    emitted.grams as emitted_grams, held.ids, held.amounts,
    wallet.id as wallet, escrow.id as escrow, earnings.id as earnings, fees.id as fees
from lease
    join offer on offer.id = lease.offer_id
    join node on node.id = lease.node_id
    join account wallet on wallet.kind = 'wallet' and wallet.project_id = lease.project_id
    join account escrow on escrow.kind = 'escrow'
    join account earnings on earnings.kind = 'earnings' and earnings.project_id = lease.provider_project_id
    join account fees on fees.kind = 'fees'
    cross join lateral (
        select array_agg(hold.id order by hold.id) as ids, array_agg(hold.amount order by hold.id) as amounts
        from transfer hold
        where hold.job_id = lease.job_id and hold.phase = 'pending' and {UNRESOLVED}
    ) held
    cross join lateral (
        select coalesce(sum(receipt.carbon_grams), 0) as grams from receipt
        where receipt.job_id = lease.job_id
    ) emitted
where lease.id = any ($1)
"""

WRITE = f"""
with moved as ({TRANSFERS}
), ended as materialized (
    select ended.* from unnest($3::json[]) each, json_to_record(each) as ended (job text, run text,
        lease text, offer text, node text, lease_state text, run_state text, job_state text, reason text,
        job_ended bool,
        started_at timestamptz, until timestamptz, exit_code int, cause text, detail text, cost bigint,
        outputs jsonb, evidence_jws text)
), ended_lease as (
    update lease set state = ended.lease_state, ended_at = $1 from ended where lease.id = ended.lease
), freed as (
    update device set lease_id = null from ended
    where device.offer_id = ended.offer and device.lease_id = ended.lease
), ended_run as (
    update run set state = ended.run_state, ended_at = ended.until, exit_code = ended.exit_code,
        cause = ended.cause, detail = ended.detail, cost = ended.cost, outputs = ended.outputs,
        started_at = coalesce(run.started_at, ended.started_at), evidence_until = ended.until,
        evidence_jws = coalesce(ended.evidence_jws, run.evidence_jws)
    from ended where run.id = ended.run
), receipted as (
    insert into receipt (issued_at, id, project_id, provider_project_id, job_id, run_id, cost, energy_joules,
        carbon_grams, payload, jws)
    select $1, signed.* from unnest($4::json[]) each, json_to_record(each) as signed (id text, project text,
        provider text, job text, run text, cost bigint, energy_joules float8, carbon_grams float8,
        payload jsonb, jws text)
), stepped as (
    update job set state = ended.job_state, reason = ended.reason, exit_code = ended.exit_code,
        ended_at = case when ended.job_ended then $1 end,
        avoid = case when ended.job_ended then avoid else array_append(avoid, ended.node) end
    from ended where job.id = ended.job
)
insert into job_event (job_id, at, kind, detail)
select job, $1, 'state', job_state || coalesce(': ' || reason, '') from ended
"""
"""$1 and $2 are those of TRANSFERS, $3 and $4 each _Ended and _Receipt as JSON: a list of texts costs the
exchange less than a list for each column, and the planner takes it for short. Offers take their parts back at
the commit (schema, lease_gives_back)."""


class PgSettlements:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def emitted(self, job: str) -> float:
        grams: float = await self._db.fetchval(
            "select coalesce(sum(carbon_grams), 0) from receipt where job_id = $1", job
        )
        return grams

    async def facts(self, of: Sequence[Engagement]) -> list[SettlementFacts]:
        rows = await self._db.fetch(FACTS, [at.lease.id for at in of])
        found = {row["id"]: _facts(row) for row in rows}
        return [found[at.lease.id] for at in of]

    async def write(self, settled: Sequence[SettledRun], *, now: datetime) -> None:
        ordered = sorted(settled, key=lambda one: one.at.job.project)
        await self._db.execute(
            WRITE,
            now,
            [_transfer(part) for one in ordered for part in settlement_transfers(one)],
            [_ended(one) for one in ordered],
            [_receipt(one, one.receipt) for one in ordered if one.receipt],
        )


def _facts(row: Any) -> SettlementFacts:
    held = zip(row["ids"] or (), row["amounts"] or (), strict=True)
    ask = _ask(row["ask_text"])
    return SettlementFacts(
        held=tuple(HeldFunds(transfer=id, amount=amount) for id, amount in held),
        accounts=Accounts(
            wallet=row["wallet"], escrow=row["escrow"], earnings=row["earnings"], fees=row["fees"]
        ),
        ask=ask,
        where=judge(ask.region, sighting_of(row["sighting_text"])),
        emitted_grams=row["emitted_grams"],
    )


@lru_cache(maxsize=ASKS_KEPT)
def _ask(text: str) -> OfferAsk:
    return msgspec.json.decode(text, type=OfferAsk)


def _transfer(part: NewTransfer) -> str:
    return msgspec.json.encode(part).decode()


def _ended(settled: SettledRun) -> str:
    """As WRITE reads it, which names the type of each column."""
    at, end = settled.at, settled.end
    row = {
        "job": at.job.id,
        "run": at.run.id,
        "lease": at.lease.id,
        "offer": at.lease.offer,
        "node": at.lease.node,
        "lease_state": settled.lease_state,
        "run_state": settled.run_state,
        "job_state": settled.job_state,
        "reason": settled.reason,
        "job_ended": settled.job_ended,
        "started_at": None if end.started_at_ms is None else from_ms(end.started_at_ms),
        "until": from_ms(end.until_ms),
        "exit_code": end.exit_code,
        "cause": end.cause,
        "detail": end.detail,
        "cost": settled.money.cost,
        "outputs": end.outputs,
        "evidence_jws": end.evidence_jws,
    }
    return msgspec.json.encode(row).decode()


def _receipt(settled: SettledRun, signed: SignedReceipt) -> str:
    at = settled.at
    row = {
        "id": signed.id,
        "project": at.lease.project,
        "provider": at.lease.provider,
        "job": at.job.id,
        "run": at.run.id,
        "cost": settled.money.cost,
        "energy_joules": signed.energy_joules,
        "carbon_grams": signed.carbon_grams,
        "payload": signed.payload,
        "jws": signed.jws,
    }
    return msgspec.json.encode(row).decode()
