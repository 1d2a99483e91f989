"""A market from files, cleared by the exchange's own code and checked by other code.

CSV, or Parquet where the name ends in ``.parquet``. Offers: offer_id, model, region, grade, devices,
price_per_device_hour, performance, memory_gb, power_w, carbon_g_per_kwh. Jobs: job_id, devices,
devices_per_node,
memory_gb, work, value, deadline_h (empty: none), delay_cost_per_h, carbon_price_per_kg, regions (separated by
``;``, empty: any). The plan: job_id, offer_id, devices, pays_per_device_hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from perak.domain.errors import InvalidInput
from perak.domain.market import auction
from perak.domain.market.bound import upper_bound
from perak.domain.market.clearing import Flags, Floats, Jobs, Offers, Plan, welfare

OFFER_COLUMNS = (
    "offer_id",
    "model",
    "region",
    "grade",
    "devices",
    "price_per_device_hour",
    "performance",
    "memory_gb",
    "power_w",
    "carbon_g_per_kwh",
)
WHOLE = ("devices", "devices_per_node")
JOB_COLUMNS = (
    "job_id",
    "devices",
    "devices_per_node",
    "memory_gb",
    "work",
    "value",
    "deadline_h",
    "delay_cost_per_h",
    "carbon_price_per_kg",
    "regions",
)
FACTS = ("performance", "memory_gb", "power_w", "carbon_g_per_kwh")
"""The same within a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Offers and jobs as the files have them, and as the clearing takes them."""

    offers: Offers
    jobs: Jobs
    offer_ids: list[str]
    job_ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearing:
    """What came out. `solve_s`: the matching alone, on one core, without reading, compiling and the bound."""

    welfare: float
    matched_jobs: int
    solve_s: float
    bound: float | None = None
    gap: float | None = None
    """1 - welfare / bound."""


def read_market(offers: Path, jobs: Path) -> Market:
    """Read both files; InvalidInput says what is wrong with one."""
    offer_table, job_table = _read(offers, OFFER_COLUMNS), _read(jobs, JOB_COLUMNS)
    kind, first = _classes(offer_table)
    regions = sorted(set(_texts(offer_table, "region")))
    region_of = {name: at for at, name in enumerate(regions)}
    named = _texts(offer_table, "region")
    facts = {name: _floats(offer_table, name, offers) for name in FACTS}
    idle = np.flatnonzero(~(facts["performance"] > 0))
    if len(idle):
        offer = _texts(offer_table, "offer_id")[idle[0]]
        raise InvalidInput(f"{offers.name}: performance of offer {offer} is not above zero.")
    for name, values in facts.items():
        differing = np.flatnonzero(~np.isclose(values, values[first][kind], rtol=1e-9, equal_nan=True))
        if len(differing):
            offer = _texts(offer_table, "offer_id")[differing[0]]
            raise InvalidInput(
                f"{offers.name}: {name} of offer {offer} differs from that of others of its model, region "
                f"and grade. "
                "It is the same within a class: give it a grade or region of its own."
            )
    count = _floats(job_table, "devices", jobs)
    return Market(
        offers=Offers(
            kind=kind,
            devices=_floats(offer_table, "devices", offers).astype(np.int64),
            price=_floats(offer_table, "price_per_device_hour", offers),
            performance=facts["performance"][first],
            memory_gb=facts["memory_gb"][first],
            power_w=facts["power_w"][first],
            carbon_g_per_kwh=facts["carbon_g_per_kwh"][first],
            region=np.array([region_of[named[at]] for at in first], np.int64),
        ),
        jobs=Jobs(
            devices=count.astype(np.int64),
            per_node=_floats(job_table, "devices_per_node", jobs).astype(np.int64),
            memory_gb=_floats(job_table, "memory_gb", jobs, missing=0.0),
            work=_floats(job_table, "work", jobs),
            value=_floats(job_table, "value", jobs),
            deadline_h=_floats(job_table, "deadline_h", jobs, missing=np.inf),
            delay_cost_per_h=_floats(job_table, "delay_cost_per_h", jobs, missing=0.0),
            carbon_price_per_kg=_floats(job_table, "carbon_price_per_kg", jobs, missing=0.0),
            admits=_admits(_texts(job_table, "regions"), region_of),
        ),
        offer_ids=_texts(offer_table, "offer_id"),
        job_ids=_texts(job_table, "job_id"),
    )


def clear(
    market: Market,
    *,
    method: Literal["instant", "auction"],
    epsilon: float | None = None,
    bound: bool = False,
) -> tuple[Plan, Clearing]:
    """Clear the market, by compiled code that is warm."""
    warm_up(method)
    began = perf_counter()
    if method == "instant":
        plan = auction.instant(market.jobs, market.offers).plan
    else:
        plan = auction.auction(market.jobs, market.offers, epsilon=epsilon).plan
    took = perf_counter() - began
    reached = welfare(plan, market.jobs, market.offers)
    limit = upper_bound(market.jobs, market.offers, plan) if bound else None
    return plan, Clearing(
        welfare=reached,
        matched_jobs=plan.matched,
        solve_s=took,
        bound=limit,
        gap=None if limit is None else (1 - reached / limit if limit > 0 else 0.0),
    )


def warm_up(method: Literal["instant", "auction"]) -> None:
    """Load or compile what the method runs, on the smallest market, so that it isn't part of its time."""
    one, two = np.ones(2), np.array([1, 2], np.int64)
    offers = Offers(
        kind=np.zeros(2, np.int64), devices=two, price=one, performance=one[:1], memory_gb=one[:1],
        power_w=one[:1], carbon_g_per_kwh=one[:1], region=np.zeros(1, np.int64),
    )  # fmt: skip
    jobs = Jobs(
        devices=two, per_node=np.ones(2, np.int64), memory_gb=one, work=one, value=9 * one,
        deadline_h=9 * one,
        delay_cost_per_h=one, carbon_price_per_kg=one, admits=np.ones((2, 1), np.bool_),
    )  # fmt: skip
    auction.instant(jobs, offers) if method == "instant" else auction.auction(jobs, offers)


def write_plan(path: Path, plan: Plan, market: Market) -> None:
    """Write the plan as CSV, or as Parquet where the name says so."""
    table = pa.table(
        {
            "job_id": pa.array([market.job_ids[j] for j in plan.job], pa.string()),
            "offer_id": pa.array([market.offer_ids[o] for o in plan.offer], pa.string()),
            "devices": pa.array(plan.devices, pa.int64()),
            "pays_per_device_hour": pa.array(plan.pays, pa.float64()),
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pacsv.write_csv(table, path, pacsv.WriteOptions(quoting_style="needed"))


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            strings = {
                name: pa.string() for name in ("offer_id", "job_id", "model", "region", "grade", "regions")
            }
            table = pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types=strings))
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{path.name} can't be read: {error}") from None
    lacking = [name for name in columns if name not in table.column_names]
    if lacking:
        raise InvalidInput(f"{path.name} has no column {', '.join(lacking)}. It needs: {', '.join(columns)}.")
    ids = table.column(columns[0])
    if pc.count_distinct(ids).as_py() != len(ids):
        raise InvalidInput(f"{path.name} has the same {columns[0]} twice.")
    return table


def _texts(table: pa.Table, name: str) -> list[str]:
    column = pc.fill_null(table.column(name).cast(pa.string()), "")
    texts: list[str] = column.to_pylist()
    return texts


def _floats(table: pa.Table, name: str, path: Path, *, missing: float | None = None) -> Floats:
    try:
        column = table.column(name).cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path.name}: {name} is not a number throughout: {error}") from None
    if missing is not None:
        column = pc.fill_null(column, missing)
    values: Any = column.to_numpy().copy()
    bad = np.flatnonzero(np.isnan(values)) if missing is None else np.zeros(0)
    if len(bad):
        raise InvalidInput(f"{path.name}: {name} is empty in row {int(bad[0]) + 1}.")
    if missing is not None:
        values[np.isnan(values)] = missing
    # A value below zero is a job that nobody wants; every other figure is an amount of something.
    wrong = np.flatnonzero(values < 0) if name != "value" else np.zeros(0)
    if len(wrong):
        raise InvalidInput(f"{path.name}: {name} is below zero in row {int(wrong[0]) + 1}.")
    if name in WHOLE and len(broken := np.flatnonzero(values % 1)):
        raise InvalidInput(f"{path.name}: {name} is no whole number in row {int(broken[0]) + 1}.")
    floats: Floats = values
    return floats


def _classes(table: pa.Table) -> tuple[Any, Any]:
    """(the class of each offer, the first offer of each class)."""
    keys = list(zip(*(_texts(table, name) for name in ("model", "region", "grade")), strict=True))
    numbers: dict[tuple[str, ...], int] = {}
    kind = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    _, first = np.unique(kind, return_index=True)
    return kind, first


def _admits(regions: list[str], region_of: dict[str, int]) -> Flags:
    admits = np.zeros((len(regions), len(region_of)), np.bool_)
    known: dict[str, Flags] = {}
    for at, text in enumerate(regions):
        if text not in known:
            names = {part.strip() for part in text.split(";") if part.strip()}
            known[text] = np.array([not names or name in names for name in region_of], np.bool_)
        admits[at] = known[text]
    return admits
