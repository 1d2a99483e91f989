"""What an audit reads: the rows as they stand, in one snapshot, with nothing summed by the database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg

ROWS_AT_ONCE = 1000
"""Rows fetched together; all of them together never are in memory."""

ACCOUNTS = "select id, kind, project_id, posted, pending from account order by id"
TRANSFERS = """
select id, phase, kind, debit, credit, amount, pending_id, job_id, run_id from transfer order by id
"""
RUNS = """
select run.id, run.state, run.cost, run.started_at, run.evidence_jws, run.job_id, run.node_id, run.epoch,
    lease.id as lease_id, lease.state as lease_state, lease.price, lease.devices_milli, lease.granted_at,
    lease.ended_at as lease_ended_at, lease.project_id, lease.provider_project_id, lease.epoch as lease_epoch,
    job.state as job_state, job.epoch as job_epoch, job.ended_at as job_ended_at
from run join lease on lease.id = run.lease_id join job on job.id = run.job_id
order by run.id
"""
RECEIPTS = """
select id, project_id, provider_project_id, job_id, run_id, cost, payload::text as payload, jws
from receipt order by id
"""
CAPACITY = """
select offer.id, used_cpu_milli, used_memory_bytes, used_disk_bytes, part.cpu_milli, part.memory_bytes,
    part.disk_bytes
from offer left join (
    select offer_id, cpu_milli, memory_bytes, disk_bytes from lease where state in ('active', 'suspected')
    union all select offer_id, cpu_milli, memory_bytes, disk_bytes from quote where state = 'held'
) part on part.offer_id = offer.id
order by offer.id
"""
TAKEN_DEVICES = """
select device.offer_id, device.uuid, device.lease_id, lease.state
from device left join lease on lease.id = device.lease_id where device.lease_id is not null
"""
JOBS = "select id, state from job"
INSPECTED_DEVICES = """
select device from inspection union select device from wipe union select device from passport_entry order by 1
"""
ENTRIES = """
select seq, kind, digest, credential, node_id, incident from passport_entry where device = $1 order by seq
"""
EVIDENCE = """
select digest, node_id, 'inspection' as kind, document, null as status, jws from inspection where device = $1
union all select digest, node_id, 'wipe', null, status, jws from wipe where device = $1
order by digest
"""
STANDINGS = """
select standing.node_id, standing.project_id, rejected, document::text as document,
    (offer.standings -> device)::text as shown
from standing left join offer on offer.node_id = standing.node_id where device = $1 order by standing.node_id
"""


@dataclass(frozen=True, slots=True)
class Books:
    """The rows of one database, as they stood at one moment."""

    connection: Any

    async def authority(self) -> str | None:
        """The certificate of the exchange's authority (PEM); None before the first start."""
        found: str | None = await self.connection.fetchval("select ca_certificate from exchange")
        return found

    async def of(self, statement: str, subject: str) -> list[asyncpg.Record]:
        """The rows of one device."""
        found: list[asyncpg.Record] = await self.connection.fetch(statement, subject)
        return found

    async def rows(self, statement: str) -> AsyncIterator[asyncpg.Record]:
        async for row in self.connection.cursor(statement, prefetch=ROWS_AT_ONCE):
            yield row


@contextlib.asynccontextmanager
async def open_books(url: str) -> AsyncIterator[Books]:
    """The books of the database at `url`, which nothing that goes on meanwhile changes."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield Books(connection)
    finally:
        await connection.close()
