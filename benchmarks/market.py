"""How good and how fast the market clears, on markets of our own making (benchmarks/market_instances.py).

Seeds 401 and 402, which were not used in development. Seconds are of processor time on one core. Every plan
is checked by other code. A gap is to the bound that `perak market clear --bound` prints. `coarse`: with steps
of bids that are COARSE times the usual.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.market_instances import Shape, Table, standard, thin

SEEDS = (401, 402)
COARSE = 32.0
GROWTH = (1_000, 3_000, 10_000, 30_000, 100_000)


def measure() -> Iterator[tuple[str, float, str]]:
    from perak.sim.clearing import warm_up

    warm_up("instant")
    warm_up("auction")
    for name, make in (
        ("10k_x_10k", lambda seed: standard(Shape(offers=10_000, jobs=10_000), seed)),
        ("100k_x_10k", lambda seed: standard(Shape(offers=100_000, jobs=10_000, demand=None), seed)),
        ("1k_x_1k", lambda seed: standard(Shape(offers=1_000, jobs=1_000), seed)),
        ("thin_2k_x_2k", lambda seed: thin(200, seed)),
    ):
        found = [_cleared(make(seed)) for seed in SEEDS]
        yield f"market_{name}_gap", round(100 * statistics.mean(gap for _, gap in found), 3), "%"
        yield f"market_{name}_seconds", round(statistics.median(took for took, _ in found), 3), "s"
    found = [_cleared(standard(Shape(offers=10_000, jobs=10_000), seed), coarse=COARSE) for seed in SEEDS]
    yield "market_10k_x_10k_coarse_gap", round(100 * statistics.mean(gap for _, gap in found), 3), "%"
    yield "market_10k_x_10k_coarse_seconds", round(statistics.median(took for took, _ in found), 3), "s"
    yield "market_instant_100k_offers", round(_instant(), 2), "us a job"
    for offers in GROWTH:
        took, _ = _cleared(standard(Shape(offers=offers, jobs=10_000, demand=None), SEEDS[0]), bound=False)
        yield f"market_{offers}_offers_seconds", round(took, 3), "s"


def _cleared(tables: tuple[Table, Table], *, bound: bool = True, coarse: float = 1.0) -> tuple[float, float]:
    """(processor seconds of the auction, gap), of a plan that was checked."""
    from perak.domain.market.auction import auction, usual_epsilon
    from perak.domain.market.bound import upper_bound
    from perak.domain.market.clearing import welfare
    from perak.sim.clearing_check import audit
    from perak.sim.clearing_rows import plan_rows

    market = _read(tables)
    epsilon = coarse * usual_epsilon(market.jobs, market.offers)
    began = time.thread_time()
    plan = auction(market.jobs, market.offers, epsilon=epsilon).plan
    took = time.thread_time() - began
    reached = welfare(plan, market.jobs, market.offers)
    checked = audit(*(_rows(table) for table in tables), plan_rows(plan, market))
    assert not checked.violations, checked.violations[0]
    print(f"{len(market.job_ids)} jobs: welfare {reached:.1f} in {took:.3f} s", file=sys.stderr)
    return took, 1 - reached / upper_bound(market.jobs, market.offers, plan) if bound else 0.0


def _instant() -> float:
    """Microseconds a job, with 100,000 offers, the index's making included."""
    from perak.domain.market.auction import instant

    market = _read(standard(Shape(offers=100_000, jobs=10_000, demand=None), 101))
    began = time.thread_time()
    instant(market.jobs, market.offers)
    return 1e6 * (time.thread_time() - began) / market.jobs.count


def _read(tables: tuple[Table, Table]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from perak.sim.clearing import read_market

    with TemporaryDirectory() as folder:
        paths = Path(folder) / "offers.parquet", Path(folder) / "jobs.parquet"
        for path, table in zip(paths, tables, strict=True):
            pq.write_table(pa.table(table), path)
        return read_market(*paths)


def _rows(table: Table) -> Iterator[dict[str, object]]:
    for row in zip(*table.values(), strict=True):
        yield dict(zip(table, row, strict=True))
