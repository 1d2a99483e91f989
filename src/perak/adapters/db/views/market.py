"""Nodes, offers and what a node should run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from perak.adapters.db.offers import SELECT as OFFER_SELECT
from perak.adapters.db.offers import offer_of, with_windows
from perak.adapters.db.windows import reserved
from perak.domain.job import JobSpec
from perak.domain.offer import Offer as MarketOffer
from perak.domain.offer import OfferAsk
from perak.domain.units import format_money
from perak.wire.api import DeviceView, Node, Offer, TemperatureView, TierView, WindowView

NODE = """
select node.id, node.name, node.project_id as project, node.state,
    case when node.mode = 'draining' and live.leases = 0 then 'drained' else node.mode end as mode,
    node.last_seen, node.enrolled_at, node.agent_version, node.notice, node.notice_at,
    node.sensors, node.health_at, node.hot, offer.id as offer, live.leases as live_leases, node.reclaim_at,
    (
        select jsonb_agg(jsonb_build_object('start_at', start_at, 'end_at', end_at, 'devices', devices,
            'cpu_milli', kept.cpu_milli, 'memory_bytes', kept.memory_bytes, 'price', kept.price)
            order by start_at)
        from (
            select * from reservation where node_id = node.id and state in ('booked', 'begun')
            order by start_at limit 100
        ) kept
    ) as reservations
from node left join offer on offer.node_id = node.id, lateral (
    select count(*) as leases from lease
    where lease.node_id = node.id and lease.state in ('active', 'suspected')
) live
"""

LEASES = """
select lease.node_id as node, lease.id as lease, run.id as run, lease.job_id as job, lease.epoch,
    lease.stop_cause, lease.devices, lease.cpu_milli, lease.memory_bytes, lease.disk_bytes,
    lease.max_duration_seconds, lease.joules_max, job.spec::text as spec_text, offer.ask->>'region' as region,
    case when run.attempt > 1 then (
        select coalesce(sum(receipt.carbon_grams), 0) from receipt where receipt.job_id = job.id
    ) else 0 end as emitted_grams,
    case when job.spec->>'isolation' is not null then offer.ask::text end as ask_text
from lease join run on run.lease_id = lease.id join job on job.id = lease.job_id
    join offer on offer.id = lease.offer_id
where lease.node_id = any ($1) and lease.state in ('active', 'suspected')
order by lease.id
"""

_spec_decoder = msgspec.json.Decoder(JobSpec)
_ask_decoder = msgspec.json.Decoder(OfferAsk)


async def list_nodes(connection: Any, *, project: str | None, before: str | None, limit: int) -> list[Node]:
    """Nodes, newest first; `project` None: of all projects."""
    rows = await connection.fetch(
        f"""{NODE} where ($1::text is null or node.project_id = $1) and ($2::text is null or node.id < $2)
        order by node.id desc limit $3""",
        project,
        before,
        limit,
    )
    return [_node(row) for row in rows]


async def get_node(connection: Any, id: str, *, project: str | None) -> Node | None:
    row = await connection.fetchrow(
        f"{NODE} where node.id = $1 and ($2::text is null or node.project_id = $2)", id, project
    )
    return _node(row) if row else None


async def list_offers(connection: Any, *, before: str | None, limit: int) -> list[Offer]:
    """Every offer, newest first: the market is open to all its members."""
    rows = await connection.fetch(
        f"{OFFER_SELECT} where $1::text is null or offer.id < $1 order by offer.id desc limit $2",
        before,
        limit,
    )
    return [_offer(offer_of(row)) for row in rows]


async def get_offer(connection: Any, id: str) -> Offer | None:
    row = await connection.fetchrow(f"{OFFER_SELECT} where offer.id = $1", id)
    return _offer(offer_of(row)) if row else None


async def offers_to_quote(connection: Any) -> list[MarketOffer]:
    """Every offer as the market sees it, those that take no work now included: a quote says why."""
    rows = await connection.fetch(f"{OFFER_SELECT} where offer.state <> 'withdrawn'")
    return with_windows([offer_of(row) for row in rows], await reserved(connection))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLease:
    """A lease that a node should have now, with its job."""

    node: str
    lease: str
    run: str
    job: str
    epoch: int
    stop_cause: str | None
    devices: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    max_duration_seconds: int
    joules_max: float | None
    """What its run may have drawn in all while its node is cut off, since that was last counted."""
    region: str
    emitted_grams: float
    """By earlier runs of the job."""
    spec: JobSpec
    tier: str | None
    """The sandbox that the job's isolation needs there; None: it asks for none."""


async def live_leases(connection: Any, nodes: Sequence[str]) -> list[LiveLease]:
    return [_live_lease(row) for row in await connection.fetch(LEASES, list(nodes))]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """Whose job a node's live lease is: its work folder, the earlier outputs that it reads, its secrets."""

    project: str
    job: str
    secrets: frozenset[str]
    stopping: bool
    """Whether the run is to stop: then it is given no secrets any more."""
    workdir_digest: str | None
    input_digests: frozenset[str]


async def leased_job(connection: Any, lease: str, *, node: str) -> LeasedJob | None:
    """The job of a live lease of the node; None where the node has no such lease."""
    row = await connection.fetchrow(
        """select job.id, job.project_id, job.workdir_digest, job.spec::text as spec_text, lease.stop_cause
        from lease join job on job.id = lease.job_id
        where lease.id = $1 and lease.node_id = $2 and lease.state in ('active', 'suspected')""",
        lease,
        node,
    )
    if row is None:
        return None
    spec = _spec_decoder.decode(row["spec_text"])
    return LeasedJob(
        project=row["project_id"],
        job=row["id"],
        secrets=spec.secret_names(),
        stopping=row["stop_cause"] is not None,
        workdir_digest=row["workdir_digest"],
        input_digests=frozenset(
            each.digest for each in spec.inputs if each.url.startswith("job:") and each.digest
        ),
    )


async def node_sign_key(connection: Any, node: str) -> bytes | None:
    """The public key of a node that is enrolled and not revoked."""
    key: bytes | None = await connection.fetchval(
        "select sign_key from node where id = $1 and state <> 'revoked'", node
    )
    return key


async def enrolled_with(connection: Any, *, secret_hash: bytes, sign_key: bytes) -> tuple[str, str] | None:
    """(node, certificate chain) of the node with this key in the project that the invite leads to."""
    row = await connection.fetchrow(
        """select node.id, node.certificate_chain from invite join node on node.project_id = invite.project_id
        where invite.secret_hash = $1 and node.sign_key = $2 and node.state <> 'revoked'""",
        secret_hash,
        sign_key,
    )
    return (row["id"], row["certificate_chain"]) if row else None


def _node(row: Mapping[str, Any]) -> Node:
    values = dict(row)
    hot = set(values.pop("hot"))
    sensors = values.pop("sensors") or ()
    windows = values.pop("reservations") or ()
    return Node(
        **values,
        temperatures=[TemperatureView(**each, hot=each["id"] in hot) for each in sensors],
        reservations=[WindowView(**{**each, "price": format_money(each["price"])}) for each in windows],
    )


def _live_lease(row: Mapping[str, Any]) -> LiveLease:
    decoded = ("devices", "spec_text", "ask_text")
    values = {name: value for name, value in row.items() if name not in decoded}
    spec, devices = _spec_decoder.decode(row["spec_text"]), tuple(row["devices"])
    return LiveLease(**values, devices=devices, spec=spec, tier=_tier(spec, row["ask_text"], devices))


def _tier(spec: JobSpec, ask_text: str | None, devices: tuple[str, ...]) -> str | None:
    """Where the offer has dropped it meanwhile, what the job asks for: the node then refuses it by name."""
    if spec.isolation is None or ask_text is None:
        return None
    ask = _ask_decoder.decode(ask_text)
    return ask.tier_for(spec.isolation, with_devices=bool(devices)) or spec.isolation


def _offer(offer: MarketOffer) -> Offer:
    ask, free = offer.ask, {d.uuid for d in offer.free_devices}
    return Offer(
        id=offer.id,
        version=offer.version,
        node=offer.node,
        node_name=offer.node_name,
        state=offer.state,
        accepting=offer.accepting,
        region=ask.region,
        region_evidence=offer.where.evidence,
        region_detail=offer.where.detail,
        region_refused=offer.where.refused,
        cpu_model=ask.cpu_model,
        cpu_milli=ask.cpu_milli,
        memory_bytes=ask.memory_bytes,
        disk_bytes=ask.disk_bytes,
        free_cpu_milli=offer.free_cpu_milli,
        free_memory_bytes=offer.free_memory_bytes,
        free_disk_bytes=offer.free_disk_bytes,
        devices=[
            DeviceView(
                index=device.index,
                kind=device.kind,
                model=device.model,
                uuid=device.uuid,
                memory_bytes=device.memory_bytes,
                compute_capability=device.compute_capability,
                free=device.uuid in free,
                grade=offer.standing_of(device).label,
            )
            for device in ask.devices
        ],
        price_gpu=None if ask.price_gpu is None else format_money(ask.price_gpu),
        price_cpu=None if ask.price_cpu is None else format_money(ask.price_cpu),
        pythons=list(ask.pythons),
        torch_variants=list(ask.torch_variants),
        takes=list(ask.takes),
        grants=list(ask.grants),
        left_out=ask.left_out,
        tier=ask.tier,
        runtime=ask.runtime,
        enforced=list(ask.enforced),
        unenforced=ask.unenforced,
        min_duration_seconds=ask.min_duration_seconds,
        available_until=ask.available_until,
        reclaim_notice_seconds=ask.reclaim_notice_seconds,
        tiers=[
            TierView(
                tier=each.tier,
                runtime=each.runtime,
                enforced=list(each.enforced),
                unenforced=each.unenforced,
                devices=each.devices,
                checklist=each.checklist or None,
            )
            for each in ask.sandboxes()
        ],
    )
