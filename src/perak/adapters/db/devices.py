"""Inspections and wipes of devices, their standings, and the entries of their passports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perak.app.records import DeviceHistory, NewInspection, NodeRecord, Unrated
from perak.domain.facts.grades import XIDS_ENDING
from perak.domain.hardware.fault import LOST, UNCORRECTED
from perak.domain.hardware.grade import EVIDENCE_DAYS_MAX
from perak.domain.hardware.inspection import DeviceInspection, canonical
from perak.domain.hardware.passport import Place, Use, wipe_digest
from perak.domain.hardware.reference import reference_of, spread_of
from perak.domain.hardware.standing import Standing
from perak.domain.hardware.wipe import WipeRecord

HISTORY_MAX = 40
"""Inspections of a device that are looked at: one every other day of EVIDENCE_DAYS_MAX."""
CARDS_MAX = 2_000
"""Of a model that a median is taken of, the last inspected ones."""
HOST_DAYS = 90
"""A host is judged by its last leases, not by what it was once."""

USE = """
select count(*) as leases,
    coalesce(sum(extract(epoch from coalesce(lease.ended_at, $2) - lease.granted_at)), 0) / 3600 as hours,
    sum(receipt.energy_joules / cardinality(lease.devices)) as energy_joules,
    count(*) filter (where run.cause in ('device_fault', 'node_lost')) as lost
from lease join run on run.lease_id = lease.id left join receipt on receipt.run_id = run.id
where lease.devices <> '{}' and lease.devices @> array[$1::text]
"""

CLASS = """
with card as (select device, min(first_at) as first_at from standing where model = $1 group by device),
grave as (select device, at from passport_entry join card using (device)
    where kind = 'incident' and incident = any($3::text[]))
select coalesce(sum(extract(epoch from $2 - first_at)), 0) / 31557600 as years,
    (select count(*) from (
        select at - lag(at) over (partition by device order by at) as since from grave
    ) incident where since is null or since > interval '1 hour')
        + (select count(*) from lease join run on run.lease_id = lease.id
            where run.cause = 'device_fault' and lease.devices <> '{}'
                and lease.devices && (select coalesce(array_agg(device), '{}') from card)
                and not exists (select from grave where grave.device = any(lease.devices)
                    and grave.at between lease.granted_at and lease.ended_at + interval '1 hour')) as failures
from card
"""
"""A failure counts once, though the driver tells it in several ways, and ends the run that has the card."""

HOST = """
select coalesce(sum(extract(epoch from coalesce(lease.ended_at, $2) - lease.granted_at)), 0) / 3600 as hours,
    count(*) filter (where run.cause = 'node_lost') as departures
from lease join run on run.lease_id = lease.id
where lease.node_id = $1 and lease.granted_at > $3
"""

CARDS = """
select distinct on (device) device, project_id, throughputs::text as throughputs
from (select * from standing where model = $1 and not rejected order by updated_at desc limit $2) recent
order by device, updated_at desc
"""

SHOW = """
update offer set
    version = version + case when $2 then 1 else 0 end,
    standings = (
        select coalesce(jsonb_object_agg(
            device, jsonb_build_object(
                'standing',
                case when document ->> 'grade' is null then document else document - 'reasons' end,
                'rejected', rejected)), '{}')
        from standing where standing.node_id = $1
    )
where offer.node_id = $1
"""
"""Copy a node's standings to its offer; a changed grade makes a new version of it. Why a device has its grade
is left out, which the market doesn't ask: it would be most of what a match reads."""

UNRATED = """
select node_id, device, model, (document ->> 'score')::float as score from standing
where document ->> 'failures_per_hour' is not null and (
    rated_at < $1
    or exists (select from run where run.node_id = standing.node_id
        and cause in ('node_lost', 'device_fault') and ended_at > rated_at)
    or exists (select from passport_entry entry where entry.device = standing.device
        and kind = 'incident' and at > rated_at))
order by node_id, device limit $2 for no key update skip locked
"""
GRAVE = [LOST, UNCORRECTED, *(f"xid {code}" for code in XIDS_ENDING)]
"""Incidents that count as failures of the device, as its class has them."""

EXPIRE = """
update standing set updated_at = $2, document = document || jsonb_build_object(
    'grade', null, 'score', null, 'reasons', jsonb_build_array($4::text))
from (
    select node_id, device from standing
    where document ->> 'grade' is not null and (document ->> 'inspected_at_ms')::bigint < $1
    order by node_id, device limit $3 for no key update skip locked
) old
where standing.node_id = old.node_id and standing.device = old.device
returning standing.node_id
"""
EXPIRED = f"ungraded because its last inspection is more than {EVIDENCE_DAYS_MAX} days ago"

_inspection_decoder = msgspec.json.Decoder(DeviceInspection)
_throughputs_decoder = msgspec.json.Decoder(dict[str, float])


class PgDevices:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def lock(self, device: str) -> None:
        await self._db.execute("select pg_advisory_xact_lock(hashtextextended('device ' || $1, 0))", device)

    async def keep(self, new: NewInspection, *, node: NodeRecord, now: datetime) -> bool:
        identity = new.inspection.identity
        kept = await self._db.fetchval(
            """insert into inspection (digest, device, node_id, project_id, model, kind, document, jws,
                ended_at, received_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            on conflict (digest) do nothing returning digest""",
            new.digest,
            identity.uuid,
            node.id,
            node.project,
            new.model,
            new.inspection.kind,
            canonical(new.inspection).decode(),
            new.jws,
            _time(new.inspection.ended_at),
            now,
        )
        if kept is None:
            return False
        await self._db.execute(
            """insert into standing (node_id, device, project_id, model, throughputs, rejected, document,
                first_at, updated_at) values ($1, $2, $3, $4, $5, false, $6, $7, $7)
            on conflict (node_id, device) do update set model = $4, updated_at = $7,
                throughputs = standing.throughputs || excluded.throughputs""",
            node.id,
            identity.uuid,
            node.project,
            new.model,
            dict(new.throughputs),
            msgspec.to_builtins(Standing()),
            now,
        )
        return True

    async def keep_wipe(self, record: WipeRecord, *, node: NodeRecord, jws: str, now: datetime) -> bool:
        kept = await self._db.fetchval(
            """insert into wipe (digest, device, node_id, status, jws, ended_at)
            values ($1, $2, $3, $4, $5, $6)
            on conflict (digest) do nothing returning digest""",
            wipe_digest(record),
            record.device,
            node.id,
            record.status,
            jws,
            _time(record.ended_at),
        )
        return kept is not None

    async def offered_elsewhere(self, device: str, *, project: str) -> bool:
        found: bool = await self._db.fetchval(
            """select exists (
                select from device join offer on offer.id = device.offer_id
                    join node on node.id = offer.node_id
                where device.uuid = $1 and offer.project_id <> $2 and node.state = 'online'
            )""",
            device,
            project,
        )
        return found

    async def history(
        self, device: str, *, node: str, project: str, model: str | None, now: datetime
    ) -> DeviceHistory:
        since = now - timedelta(days=EVIDENCE_DAYS_MAX)
        documents = await self._db.fetch(
            """select document from inspection where device = $1 and project_id = $2 and ended_at > $3
            order by ended_at desc limit $4""",
            device,
            project,
            since,
            HISTORY_MAX,
        )
        held = await self._db.fetchrow(
            "select document from standing where node_id = $1 and device = $2", node, device
        )
        cards = await self._db.fetch(CARDS, model, CARDS_MAX)
        rates: dict[str, tuple[str, Mapping[str, float]]] = {
            row["device"]: (row["project_id"], _throughputs_decoder.decode(row["throughputs"]))
            for row in cards
        }
        of_class = await self._db.fetchrow(CLASS, model, now, GRAVE)
        of_host = await self._db.fetchrow(HOST, node, now, now - timedelta(days=HOST_DAYS))
        return DeviceHistory(
            inspections=tuple(_inspection_decoder.decode(row["document"]) for row in reversed(documents)),
            grade=held["document"]["grade"] if held else None,
            reference=reference_of(rates),
            spread=spread_of(rates),
            use=await self._use(device, now),
            class_failures=float(of_class["failures"]),
            class_years=float(of_class["years"]),
            host_departures=float(of_host["departures"]),
            host_hours=float(of_host["hours"]),
        )

    async def _use(self, device: str, now: datetime) -> Use:
        row = await self._db.fetchrow(USE, device, now)
        wipes = await self._db.fetchval(
            "select count(*) from wipe where device = $1 and status = 'passed'", device
        )
        owners = await self._db.fetchval(
            "select count(distinct project_id) from inspection where device = $1", device
        )
        return Use(
            leases=row["leases"],
            hours_leased=float(row["hours"]),
            energy_joules=row["energy_joules"],
            lost_runs=row["lost"],
            wipes=wipes,
            owners=max(1, owners),
        )

    async def expire(self, *, now: datetime, limit: int) -> int:
        """Take the grades of devices that nobody inspected for EVIDENCE_DAYS_MAX, some at once; how many."""
        before = int((now - timedelta(days=EVIDENCE_DAYS_MAX)).timestamp() * 1000)
        rows = await self._db.fetch(EXPIRE, before, now, limit, EXPIRED)
        for node in sorted({row["node_id"] for row in rows}):
            await self._db.execute(SHOW, node, True)
        return len(rows)

    async def last_entry(self, device: str) -> tuple[int, str] | None:
        row = await self._db.fetchrow(
            "select seq, digest from passport_entry where device = $1 order by seq desc limit 1", device
        )
        return (row["seq"], row["digest"]) if row else None

    async def append(
        self,
        place: Place,
        *,
        kind: str,
        digest: str,
        credential: str,
        node: NodeRecord,
        now: datetime,
        incident: str | None = None,
    ) -> None:
        await self._db.execute(
            """insert into passport_entry (device, seq, kind, digest, credential, node_id, at, incident)
            values ($1, $2, $3, $4, $5, $6, $7, $8)""",
            place.device,
            place.seq,
            kind,
            digest,
            credential,
            node.id,
            now,
            incident,
        )

    async def is_of(self, device: str, *, node: str) -> bool:
        found: bool = await self._db.fetchval(
            "select exists (select from standing where node_id = $1 and device = $2)", node, device
        )
        return found

    async def is_leased(self, device: str, *, node: str) -> bool:
        found: bool = await self._db.fetchval(
            """select exists (select from device join offer on offer.id = device.offer_id
                where device.uuid = $1 and offer.node_id = $2 and device.lease_id is not null)""",
            device,
            node,
        )
        return found

    async def has_incident(self, device: str, what: str, *, since: datetime) -> bool:
        found: bool = await self._db.fetchval(
            """select exists (select from passport_entry
                where device = $1 and kind = 'incident' and incident = $2 and at > $3)""",
            device,
            what,
            since,
        )
        return found

    async def unrated(self, *, rated_before: datetime, limit: int, now: datetime) -> list[Unrated]:
        classes: dict[str | None, Any] = {}
        hosts: dict[str, Any] = {}
        found = []
        for row in await self._db.fetch(UNRATED, rated_before, limit):
            model, node = row["model"], row["node_id"]
            if model not in classes:
                classes[model] = await self._db.fetchrow(CLASS, model, now, GRAVE)
            if node not in hosts:
                hosts[node] = await self._db.fetchrow(HOST, node, now, now - timedelta(days=HOST_DAYS))
            found.append(
                Unrated(
                    node=node,
                    device=row["device"],
                    score=row["score"],
                    class_failures=float(classes[model]["failures"]),
                    class_years=float(classes[model]["years"]),
                    host_departures=float(hosts[node]["departures"]),
                    host_hours=float(hosts[node]["hours"]),
                )
            )
        return found

    async def rate(self, device: str, *, node: str, failures_per_hour: float, now: datetime) -> None:
        await self._db.execute(
            """update standing set rated_at = $4,
                document = document || jsonb_build_object('failures_per_hour', $3::float)
            where node_id = $1 and device = $2""",
            node,
            device,
            failures_per_hour,
            now,
        )

    async def show(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            await self._db.execute(SHOW, node, False)

    async def set_standing(
        self, device: str, *, node: str, standing: Standing, rejected: bool, now: datetime
    ) -> bool:
        before = await self._db.fetchrow(
            "select document, rejected from standing where node_id = $1 and device = $2", node, device
        )
        await self._db.execute(
            """update standing set document = $3, rejected = $4, updated_at = $5, rated_at = $5
            where node_id = $1 and device = $2""",
            node,
            device,
            msgspec.to_builtins(standing),
            rejected,
            now,
        )
        was = (before["document"]["grade"], before["rejected"]) if before else (None, False)
        changed = was != (standing.grade, rejected)
        await self._db.execute(SHOW, node, changed)
        return changed


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC)
