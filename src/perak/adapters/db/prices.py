"""What happened on the market, for the public price history, and samples of how much was in use."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from perak.domain.hardware.specs import find_gpu
from perak.domain.market.defer import PriceProfile, profile
from perak.domain.market.ticker import Happened, Used

ROWS_MAX = 50_000
"""Of one question: a month of a busy market's classes, hours and prices."""
DUE = """
update market_sampled set at = $1 from (select at from market_sampled for update skip locked) last
where last.at <= $1::timestamptz - make_interval(secs => $2)
returning extract(epoch from $1::timestamptz - last.at)::float8
"""
"""Seconds since the last sample; what an exchange did not see while it was away is not guessed."""

PROFILE_DAYS = 14
"""Two of each day of the week: enough for a habit, and not last season's."""

HAPPENED = """
select date_trunc('hour', at, 'UTC') as hour, kind, gpu, model, region, grade, price,
    count(*) as count, sum(devices_milli)::bigint as devices_milli
from market_event where at >= $1 and at < $2
group by 1, 2, 3, 4, 5, 6, 7 order by 1 desc limit $3
"""

SAMPLE = """
with offered as (
    select device.lease_id is not null as leased, each->>'model' as model, offer.region,
        coalesce(offer.standings->device.uuid->'standing'->>'grade', '') as grade
    from offer join node on node.id = offer.node_id and node.state = 'online'
        join device on device.offer_id = offer.id
        join lateral jsonb_array_elements(offer.ask->'devices') each on each->>'uuid' = device.uuid
    where offer.state = 'open' and coalesce(offer.price_gpu_set, offer.price_gpu_posted) is not null
), counted as (
    select true as gpu, model, region, grade, 1000 * count(*) as offered,
        1000 * count(*) filter (where leased) as leased
    from offered group by model, region, grade
    union all
    select false, offer.ask->>'cpu_model', offer.region, '', sum(offer.cpu_milli), sum(offer.used_cpu_milli)
    from offer join node on node.id = offer.node_id and node.state = 'online'
    where offer.state = 'open' and coalesce(offer.price_cpu_set, offer.price_cpu_posted) is not null
    group by offer.ask->>'cpu_model', offer.region
)
insert into market_use (hour, gpu, model, region, grade, offered, leased)
select date_trunc('hour', $1::timestamptz, 'UTC'), gpu, coalesce(model, 'unknown'), region, grade,
    (offered * $2)::bigint, (leased * $2)::bigint
from counted
on conflict (hour, gpu, model, region, grade) do update set
    offered = market_use.offered + excluded.offered, leased = market_use.leased + excluded.leased
"""


async def happened(connection: Any, *, since: datetime, until: datetime) -> list[Happened]:
    rows = await connection.fetch(HAPPENED, since, until, ROWS_MAX)
    return [Happened(**dict(row)) for row in rows]


async def used(connection: Any, *, since: datetime, until: datetime) -> list[Used]:
    rows = await connection.fetch(
        """select hour, gpu, model, region, nullif(grade, '') as grade, offered, leased from market_use
        where hour >= $1 and hour < $2 order by hour desc limit $3""",
        since,
        until,
        ROWS_MAX,
    )
    return [Used(**dict(row)) for row in rows]


async def price_profile(connection: Any, *, now: datetime) -> PriceProfile:
    """What hours of the day (UTC) cost in the last PROFILE_DAYS, by model."""
    rows = await connection.fetch(
        """select gpu, model, extract(hour from at at time zone 'UTC')::int as hour,
            avg(price)::float8 as price, count(*) as trades
        from market_event where kind = 'trade' and price is not null and at >= $1
        group by 1, 2, 3""",
        now - timedelta(days=PROFILE_DAYS),
    )
    paid: defaultdict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
    for row in rows:
        known = find_gpu(row["model"]) if row["gpu"] else None
        model, hour = known.variant if known else row["model"], row["hour"]
        price, trades = paid[model].get(hour, (0.0, 0))
        total = trades + row["trades"]
        paid[model][hour] = (price * trades + row["price"] * row["trades"]) / total, total
    return profile(paid)


async def sample(connection: Any, *, now: datetime, every_seconds: float) -> None:
    """Count what is offered and leased now, if no replica did in the last `every_seconds`."""
    seconds = await connection.fetchval(DUE, now, every_seconds)
    if seconds is not None:
        await connection.execute(SAMPLE, now, min(seconds, 2 * every_seconds))
