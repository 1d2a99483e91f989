"""A run's carbon for its receipt: location-based, by the hours in which it drew; and the hardware's share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from perak.domain.carbon.breakeven import new_card_for, sheet_pair
from perak.domain.carbon.embodied import embodied_share, gpu_range
from perak.domain.carbon.placement import FORECAST, MEASURED, YEARLY, Grid, ZoneOutlook
from perak.domain.carbon.signal import SECONDS_PER_HOUR, parts_by_hour
from perak.domain.errors import InvalidInput
from perak.domain.facts.power import NETWORK_KWH_PER_GB, NETWORK_SOURCE, PUE_UNKNOWN
from perak.domain.footprint import (
    HOURS_ON_RECEIPT_MAX,
    JOULES_PER_KWH,
    YEARLY_AVERAGE,
    Avoided,
    Carbon,
    Embodied,
    EmbodiedPart,
    HourCarbon,
    Moved,
    avoided_grams,
    moving_grams,
)
from perak.domain.whereabouts import CLAIMED, Whereabouts

HOURLY = "hourly average"

Hours = Sequence[tuple[int, float]]


def operational(
    joules: float,
    *,
    hours: Hours = (),
    start: float,
    seconds: float,
    region: str,
    grid: Grid,
    where: Whereabouts = CLAIMED,
    pue: float = PUE_UNKNOWN,
) -> Carbon:
    """Operational CO2e of a run that drew `joules` from Unix time `start` on.

    `hours`: in which hours the node drew what; without them the power is taken as even. Where no feed knows
    any of the hours, the year's average counts, and the receipt says so.
    """
    outlook = grid.zone(region)
    drawn = hours or _even(joules, start, seconds)
    rows = [_row(outlook, hour, part) for hour, part in drawn]
    hourly = any(row.kind != YEARLY for row in rows)
    if not hourly:
        grams_per_kwh = outlook.yearly.grams_per_kwh
    else:
        weight = math.fsum(row.joules for row in rows)
        weighted = math.fsum(row.joules * row.grams_per_kwh for row in rows)
        even = math.fsum(row.grams_per_kwh for row in rows) / len(rows)
        grams_per_kwh = weighted / weight if weight else even
    return Carbon(
        grams=joules / JOULES_PER_KWH * grams_per_kwh * pue,
        grams_per_kwh=grams_per_kwh,
        pue=pue,
        region=outlook.measured.zone if hourly and outlook.measured else outlook.yearly.region,
        method=_method(rows) if hourly else YEARLY_AVERAGE,
        source=_source(outlook, rows) if hourly else outlook.yearly.source,
        year=datetime.fromtimestamp(start, tz=UTC).year if hourly else outlook.yearly.year,
        hours=tuple(rows) if hourly and len(rows) <= HOURS_ON_RECEIPT_MAX else (),
        region_evidence=where.evidence,
        note=outlook.note or None,
    )


def hardware(
    *, gpus: Sequence[tuple[str, int]], host_share: float, seconds: float
) -> tuple[Embodied, Avoided | None]:
    """The embodied share of a run, and what using these GPUs instead of a new one may have avoided.

    `gpus`: (name, bytes of memory) of each. Nothing is said to be avoided where no new card is known to
    compare with, or by a run without GPUs.
    """
    embodied = embodied_share(gpus=gpus, host_share=host_share, seconds=seconds)
    if not gpus:
        return embodied, None
    name, memory_bytes = gpus[0]
    new = new_card_for(name, memory_bytes=memory_bytes)
    if new is None:
        return embodied, None
    try:
        pair = sheet_pair(name, new, memory_bytes=memory_bytes)
    except InvalidInput:
        return embodied, None
    low_kg, high_kg, sources = gpu_range(new)
    part = EmbodiedPart(what=new, count=float(len(gpus)), low_kg=low_kg, high_kg=high_kg, sources=sources)
    ratio = round(pair.typical_ratio, 6)
    low, high = avoided_grams(embodied, part, time_ratio=ratio)
    return embodied, Avoided(
        low_grams=low, high_grams=high, instead_of=new, time_ratio=ratio, basis=pair.basis, part=part
    )


def moving(
    *,
    received_bytes: int,
    sent_bytes: int,
    run_bytes: int,
    grams_per_kwh: float,
    uncounted: Sequence[str] = (),
) -> Moved:
    """What moving a run's data emitted; `grams_per_kwh`: of the run, as the way of the bytes is not known."""
    size = received_bytes + sent_bytes + run_bytes
    low, high = moving_grams(size, grams_per_kwh=grams_per_kwh)
    return Moved(
        received_bytes=received_bytes,
        sent_bytes=sent_bytes,
        run_bytes=run_bytes,
        kwh_per_gb_low=NETWORK_KWH_PER_GB[0],
        kwh_per_gb_high=NETWORK_KWH_PER_GB[1],
        grams_per_kwh=grams_per_kwh,
        low_grams=low,
        high_grams=high,
        source=NETWORK_SOURCE,
        uncounted=tuple(uncounted),
    )


def _even(joules: float, start: float, seconds: float) -> Hours:
    parts = list(parts_by_hour(start, seconds)) or [(int(start // SECONDS_PER_HOUR), 1.0)]
    whole = sum(part for _, part in parts)
    return [(hour, joules * part / whole) for hour, part in parts]


def _row(outlook: ZoneOutlook, hour: int, joules: float) -> HourCarbon:
    grams, kind = outlook.at(hour)
    return HourCarbon(hour=hour, joules=joules, grams_per_kwh=grams, kind=kind)


def _method(rows: Sequence[HourCarbon]) -> str:
    """``hourly average: measured``, with what share of the energy other kinds of figure were used for."""
    whole = math.fsum(row.joules for row in rows) or 1.0
    shares = {
        kind: math.fsum(row.joules for row in rows if row.kind == kind) / whole
        for kind in (MEASURED, FORECAST, YEARLY)
    }
    kinds = [kind for kind in shares if any(row.kind == kind for row in rows)]
    if len(kinds) == 1:
        return f"{HOURLY}: {kinds[0]}"
    return f"{HOURLY}: " + ", ".join(f"{shares[kind]:.0%} {kind}" for kind in kinds)


def _source(outlook: ZoneOutlook, rows: Sequence[HourCarbon]) -> str:
    kinds = {row.kind for row in rows}
    named = []
    if MEASURED in kinds and outlook.measured is not None:
        named.append(outlook.measured.source)
    if FORECAST in kinds and outlook.forecast is not None:
        named.append(outlook.forecast.source)
    if YEARLY in kinds:
        named.append(f"{outlook.yearly.source} ({outlook.yearly.region} {outlook.yearly.year})")
    return "; ".join(dict.fromkeys(named))
