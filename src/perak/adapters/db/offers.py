"""Offers and their devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from perak.adapters.db.devices import SHOW
from perak.adapters.db.grid import sighting_of
from perak.adapters.db.windows import reserved
from perak.app.records import NodeRecord
from perak.domain.hardware.standing import Standing
from perak.domain.job import JobSpec
from perak.domain.offer import Claim, Offer, OfferAsk
from perak.domain.whereabouts import judge

_ask_decoder = msgspec.json.Decoder(OfferAsk)

STANDINGS_REMEMBERED_MAX = 8_192
"""Offers whose standings stay decoded between matches: they change with an inspection, not with a lease."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A device's standing as an offer carries it."""

    standing: Standing
    rejected: bool


_standings_decoder = msgspec.json.Decoder(dict[str, _Held])


@lru_cache(maxsize=STANDINGS_REMEMBERED_MAX)
def _held_of(text: str) -> Mapping[str, _Held]:
    return _standings_decoder.decode(text)


SELECT = """
select offer.id, offer.version, offer.node_id, node.name as node_name, offer.project_id, offer.state,
    offer.ask::text as ask_text,
    coalesce(offer.price_gpu_set, offer.price_gpu_posted) as price_gpu,
    coalesce(offer.price_cpu_set, offer.price_cpu_posted) as price_cpu,
    offer.cpu_milli - offer.used_cpu_milli as free_cpu_milli,
    offer.memory_bytes - offer.used_memory_bytes as free_memory_bytes,
    offer.disk_bytes - offer.used_disk_bytes as free_disk_bytes,
    array(
        select uuid from device where device.offer_id = offer.id and device.lease_id is null
            and device.quote_id is null
    ) as free_devices,
    node.state = 'online' and node.mode = 'accepting' as accepting,
    nullif(offer.standings, '{}')::text as standings_text,
    node.sighting::text as sighting_text
from offer join node on node.id = offer.node_id
"""

POST = """
insert into offer (id, project_id, node_id, state, ask, region, cpu_milli, memory_bytes, disk_bytes,
    price_gpu_posted, price_cpu_posted, created_at, updated_at)
values ($1, $2, $3, 'open', $4, $5, $6, $7, $8, $9, $10, $11, $11)
on conflict (node_id) do update set
    version = offer.version + 1, ask = $4, region = $5, cpu_milli = $6, memory_bytes = $7, disk_bytes = $8,
    price_gpu_posted = $9, price_cpu_posted = $10, updated_at = $11
where (offer.ask, offer.region, offer.cpu_milli, offer.memory_bytes, offer.disk_bytes, offer.price_gpu_posted,
    offer.price_cpu_posted) is distinct from ($4, $5, $6, $7, $8, $9, $10)
returning id
"""


def taking(*, offer: str, version: str) -> str:
    """The statement that takes a part of an offer, if it is still of that version and has the part free now.

    `offer`, `version`: the names of those parameters; $7 are the devices' UUIDs, $8 to $10 the thousandths of
    cores, the bytes of memory and of disk. It returns the offer's id and notice, or no row.
    """
    return f"""
    update offer set used_cpu_milli = used_cpu_milli + $8, used_memory_bytes = used_memory_bytes + $9,
        used_disk_bytes = used_disk_bytes + $10
    from node
    where offer.id = {offer} and offer.version = {version} and offer.state = 'open'
        and node.id = offer.node_id and node.state = 'online' and node.mode = 'accepting'
        and used_cpu_milli + $8 <= offer.cpu_milli and used_memory_bytes + $9 <= offer.memory_bytes
        and used_disk_bytes + $10 <= offer.disk_bytes
        and cardinality($7::text[]) = (
            select count(*) from device where device.offer_id = {offer} and device.uuid = any ($7)
                and device.lease_id is null and device.quote_id is null
        )
    returning offer.id, offer.reclaim_notice_seconds"""


class PgOffers:
    def __init__(self, connection: Any) -> None:
        self._db = connection

    async def post(self, *, id: str, node: NodeRecord, ask: OfferAsk, now: datetime) -> None:
        offer = await self._db.fetchval(
            POST,
            id,
            node.project,
            node.id,
            ask,
            ask.region,
            ask.cpu_milli,
            ask.memory_bytes,
            ask.disk_bytes,
            ask.price_gpu,
            ask.price_cpu,
            now,
        )
        if offer is not None:
            await self._post_devices(offer, ask)
            await self._db.execute(SHOW, node.id, False)

    async def _post_devices(self, offer: str, ask: OfferAsk) -> None:
        """Replace the devices; one that is leased stays, even where it is posted no more."""
        await self._db.execute(
            "delete from device where offer_id = $1 and lease_id is null and uuid <> all ($2)",
            offer,
            [d.uuid for d in ask.devices],
        )
        await self._db.executemany(
            """insert into device (offer_id, uuid, position, model, memory_bytes) values ($1, $2, $3, $4, $5)
            on conflict (offer_id, uuid) do update set position = $3, model = $4, memory_bytes = $5""",
            [(offer, d.uuid, d.index, d.model, d.memory_bytes) for d in ask.devices],
        )

    async def all_open(self) -> list[Offer]:
        offers = [offer_of(row) for row in await self._db.fetch(f"{SELECT} where offer.state = 'open'")]
        return with_windows(offers, await reserved(self._db))

    async def of_node(self, node: str) -> Offer | None:
        row = await self._db.fetchrow(f"{SELECT} where offer.node_id = $1", node)
        if row is None:
            return None
        return with_windows([offer_of(row)], await reserved(self._db, offer=row["id"]))[0]

    async def lock(self, id: str, *, project: str) -> Offer | None:
        row = await self._db.fetchrow(
            f"{SELECT} where offer.id = $1 and offer.project_id = $2 for no key update of offer", id, project
        )
        return offer_of(row) if row else None

    async def set(
        self,
        id: str,
        *,
        state: str,
        price_gpu: int | None,
        keep_price_gpu: bool,
        price_cpu: int | None,
        keep_price_cpu: bool,
        now: datetime,
    ) -> None:
        await self._db.execute(
            """update offer set version = version + 1, state = $2,
                price_gpu_set = case when $4 then price_gpu_set else $3::bigint end,
                price_cpu_set = case when $6 then price_cpu_set else $5::bigint end, updated_at = $7
            where id = $1""",
            id,
            state,
            price_gpu,
            keep_price_gpu,
            price_cpu,
            keep_price_cpu,
            now,
        )

    async def cheapest_price(self, spec: JobSpec) -> int | None:
        wanted = spec.resources
        price = "price_gpu" if wanted.gpu_count else "price_cpu"
        cheapest: int | None = await self._db.fetchval(
            f"""select min(coalesce({price}_set, {price}_posted)) from offer
            where state = 'open' and cpu_milli >= $1 and memory_bytes >= $2 and disk_bytes >= $3
                and ($4 = 0 or $4 <= (
                    select count(*) from device where offer_id = offer.id and device.memory_bytes >= $5))""",
            wanted.cpu_milli,
            wanted.memory_bytes,
            wanted.disk_bytes,
            wanted.gpu_count,
            wanted.gpu_memory_bytes,
        )
        return cheapest


def with_windows(offers: list[Offer], windows: Mapping[str, tuple[Claim, ...]]) -> list[Offer]:
    """The offers with the windows for which parts of them are kept."""
    if not windows:
        return offers
    return [replace(each, reserved=windows.get(each.id, ())) for each in offers]


def offer_of(row: Mapping[str, Any]) -> Offer:
    """An Offer of a row of SELECT: the ask at the prices in force, what of it is free, and its devices'
    standings. A device that the exchange rejected is not in it but among the left out, with the reason."""
    ask = replace(
        _ask_decoder.decode(row["ask_text"]), price_gpu=row["price_gpu"], price_cpu=row["price_cpu"]
    )
    free = set(row["free_devices"])
    where = judge(ask.region, sighting_of(row["sighting_text"]))
    held: Mapping[str, _Held] = {}
    if row["standings_text"] is not None:
        held = _held_of(row["standings_text"])
        ask = _without_rejected(ask, held)
    return Offer(
        id=row["id"],
        version=row["version"],
        node=row["node_id"],
        node_name=row["node_name"],
        provider=row["project_id"],
        state=row["state"],
        ask=ask,
        free_cpu_milli=row["free_cpu_milli"],
        free_memory_bytes=row["free_memory_bytes"],
        free_disk_bytes=row["free_disk_bytes"],
        free_devices=tuple(d for d in ask.devices if d.uuid in free),
        accepting=row["accepting"] and where.refused is None,
        where=where,
        standings={uuid: each.standing for uuid, each in held.items()},
    )


def _without_rejected(ask: OfferAsk, held: Mapping[str, _Held]) -> OfferAsk:
    rejected = {
        d.uuid: "; ".join(held[d.uuid].standing.reasons) or "rejected by the exchange"
        for d in ask.devices
        if d.uuid in held and held[d.uuid].rejected
    }
    if not rejected:
        return ask
    offered = tuple(d for d in ask.devices if d.uuid not in rejected)
    return replace(ask, devices=offered, left_out=ask.left_out | rejected)
