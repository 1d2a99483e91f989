"""Jobs of several renters through the whole exchange, with simulated agents: none lost, no money made."""

from __future__ import annotations

import random

from benchmarks.replay import Arrival, replay

from integration.server.server_world import Running
from perak.server.audit_command import audit_database

JOBS = 40
NODES = (4, 1)
"""GPUs: fewer than the jobs want at once, so that some wait."""


async def test_a_crowd_loses_no_job_and_no_money(exchange: Running, database_url: str) -> None:
    draw = random.Random(7)
    arrivals = [
        Arrival(
            at=draw.uniform(0, 1.0),
            seconds=draw.uniform(0.01, 0.3),
            gpus=draw.choice((1, 1, 1, 2, 4)),
            renter=draw.choice(("one", "two", "three")),
        )
        for _ in range(JOBS)
    ]

    # The smallest wallet lets a few jobs hold their money: the others of that renter wait for it.
    outcome = await replay(
        exchange.url, exchange.key, arrivals, nodes=NODES, wallet="1.50", cut_seconds=0.7,
        ends_seconds_max=60.0,
    )  # fmt: skip
    report = await audit_database(database_url, None)

    assert (outcome.jobs, outcome.lost, outcome.negative_balances) == (JOBS, 0, 0)
    assert len(outcome.waits) == JOBS
    assert report.looked_at["jobs"] == JOBS
    assert report.sound, list(report.lines())
