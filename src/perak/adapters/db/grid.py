"""The hours that feeds told, so that a replica that starts knows the past; and where nodes were seen."""

from __future__ import annotations

from typing import Any

import msgspec

from perak.domain.carbon.signal import AverageHours
from perak.domain.whereabouts import Sighting

HOURS_KEPT = 24 * 400
"""More than a year, so that a month's report can be done again."""

_sighting = msgspec.json.Decoder(Sighting)


async def write_hours(connection: Any, series: AverageHours) -> None:
    """Keep the hours that are known; a newer figure of an hour replaces an older one."""
    known = [(series.first_hour + i, v) for i, v in enumerate(series.grams_per_kwh) if v is not None]
    await connection.execute(
        """insert into grid_hour (zone, hour, grams_per_kwh, source, factor)
        select $1, unnest($2::bigint[]), unnest($3::float8[]), $4, $5
        on conflict (zone, hour) do update set grams_per_kwh = excluded.grams_per_kwh,
            source = excluded.source, factor = excluded.factor
        where (grid_hour.grams_per_kwh, grid_hour.source, grid_hour.factor)
            is distinct from (excluded.grams_per_kwh, excluded.source, excluded.factor)""",
        series.zone,
        [hour for hour, _ in known],
        [value for _, value in known],
        series.source,
        series.factor,
    )


async def read_hours(connection: Any, zone: str, *, since_hour: int) -> AverageHours | None:
    """The hours of a zone since one, of the source that told the last; None: there are none."""
    rows = await connection.fetch(
        """select hour, grams_per_kwh, source, factor from grid_hour where zone = $1 and hour >= $2
        order by hour""",
        zone,
        since_hour,
    )
    if not rows:
        return None
    first, last = rows[0]["hour"], rows[-1]
    known = {row["hour"]: row["grams_per_kwh"] for row in rows}
    return AverageHours(
        zone=zone,
        first_hour=first,
        grams_per_kwh=tuple(known.get(hour) for hour in range(first, last["hour"] + 1)),
        source=last["source"],
        factor=last["factor"],
    )


async def forget_hours(connection: Any, *, before_hour: int) -> None:
    await connection.execute("delete from grid_hour where hour < $1", before_hour)


async def write_sighting(connection: Any, node: str, sighting: Sighting) -> None:
    """What was last seen of where a node is."""
    await connection.execute("update node set sighting = $2 where id = $1", node, sighting)


def sighting_of(text: str | None) -> Sighting | None:
    return None if text is None else _sighting.decode(text)
