"""The rows of a market's files and of a plan, as the check by other code reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perak.domain.market.clearing import Plan
    from perak.sim.clearing import Market


def rows(path: Path) -> Iterator[dict[str, object]]:
    """The rows of a CSV or Parquet file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
        return
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def plan_rows(plan: Plan, market: Market) -> Iterator[dict[str, object]]:
    """The plan as its file has it."""
    for job, offer, devices, pays in zip(plan.job, plan.offer, plan.devices, plan.pays, strict=True):
        yield {
            "job_id": market.job_ids[job],
            "offer_id": market.offer_ids[offer],
            "devices": int(devices),
            "pays_per_device_hour": float(pays),
        }
