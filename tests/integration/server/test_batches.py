"""Deferrable jobs are cleared together, in a child process; one that fails stands in nobody's way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from integration.server.server_world import (
    OFFER,
    Running,
    ScriptedNode,
    exited,
    now_ms,
    running_exchange,
    started,
)
from perak.app.periods import Periods
from perak.domain.offer import Device
from perak.domain.report import OfferPosted
from perak.server.audit_command import audit_database
from perak.server.batching import Solver, SolverFailed, clear_batch

READY = "import time; print('ready', flush=True); input(); "
HANGS = (sys.executable, "-c", READY + "time.sleep(600)")
DIES = (sys.executable, "-c", READY + "raise SystemExit(1)")
BABBLES = (sys.executable, "-c", READY + "print('[1]', flush=True)")
pytestmark = pytest.mark.timeout(400)
"""In a fresh clone the solver compiles, once for all tests of this file."""

GPU = Device(index=0, kind="nvidia", model="Tesla V100-SXM2-32GB", uuid="GPU-1", memory_bytes=32 * 2**30)
ONE_GPU = replace(OFFER, cpu_milli=8000, memory_bytes=32 * 10**9, devices=(GPU,), price_gpu=300_000)
PERIODS = Periods(batch_seconds=3600.0, batch_solve_seconds=60.0)
"""The loop never comes to a batch, and instant matches leave the jobs alone: the tests clear by hand."""


@pytest.fixture
async def solver() -> AsyncIterator[Solver]:
    """It runs before a node says its first word: where it compiles, a node would seem silent meanwhile."""
    solver = Solver()
    await solver.start()
    yield solver
    await solver.close()


@pytest.fixture
async def exchange(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_exchange(database_url, tmp_path / "exchange", periods=PERIODS) as running:
        yield running


async def waiting(exchange: Running, max_price: str, **changes: Any) -> str:
    return await exchange.submit(
        resources={"gpu_count": 1},
        start={"within": "4h"},
        limits={"max_price": max_price, "max_duration": "1h"},
        **changes,
    )


async def cleared(exchange: Running, solver: Solver, node: ScriptedNode, job: str) -> Any:
    """Clear batches, as the loop does, until the job has its lease."""
    while not (found := [order for order in node.leases if order.job == job]):
        await clear_batch(exchange.services, solver)
        await asyncio.sleep(0.1)
    return found[0]


async def test_the_better_bid_wins_and_pays_what_it_displaced(
    solver: Solver, exchange: Running, node: ScriptedNode, database_url: str
) -> None:
    low, high = await waiting(exchange, "0.50/h"), await waiting(exchange, "0.90/h")
    await node.report(OfferPosted(offer=ONE_GPU))
    order = await cleared(exchange, solver, node, high)
    assert (await exchange.job(low))["state"] == "queued"

    at = now_ms() - 1
    await node.report(started(order, at=at), exited(order, started_at=at))
    after = await cleared(exchange, solver, node, low)

    for job, price, why in (
        (high, "0.50 USD per device-hour", "the ask, and what the other would have given above it"),
        (low, "0.30 USD per device-hour", "nobody was displaced"),
    ):
        told = (await exchange.client.get(f"/v1/jobs/{job}/why")).json()
        assert price in told["reasons"][0], why
    await node.report(started(after), exited(after, started_at=now_ms()))
    report = await audit_database(database_url, None)
    assert report.sound, list(report.lines())


async def test_a_plan_on_facts_that_changed_grants_nothing(
    solver: Solver, exchange: Running, node: ScriptedNode
) -> None:
    job = await waiting(exchange, "0.50/h")
    await node.report(OfferPosted(offer=ONE_GPU))
    solve = solver.solve

    async def dearer(*args: Any, **rest: Any) -> Any:
        parts = await solve(*args, **rest)
        assert parts
        await node.report(OfferPosted(offer=replace(ONE_GPU, price_gpu=400_000)))
        return parts

    solver.solve = dearer  # type: ignore[method-assign]
    await clear_batch(exchange.services, solver)

    assert (await exchange.job(job))["state"] == "queued"


@pytest.mark.parametrize(
    ("command", "seconds"), [(HANGS, 0.1), (DIES, 60.0), (BABBLES, 60.0)], ids=["hangs", "dies", "babbles"]
)
async def test_a_solver_that_fails_delays_no_instant_match(
    exchange: Running, node: ScriptedNode, command: tuple[str, ...], seconds: float
) -> None:
    await waiting(exchange, "0.50/h")
    await node.report(OfferPosted(offer=ONE_GPU))
    services = replace(exchange.services, periods=replace(PERIODS, batch_solve_seconds=seconds))
    solver = Solver(command)
    await solver.start()

    with pytest.raises(SolverFailed):
        await clear_batch(services, solver)

    assert not solver.running
    at_once = await exchange.submit(resources={"gpu_count": 1}, limits={"max_duration": "1h"})
    await node.lease_of(at_once)


async def test_a_solver_that_can_not_start_says_so() -> None:
    with pytest.raises(SolverFailed, match="did not start"):
        await Solver((sys.executable, "-c", "raise SystemExit(1)")).start()


async def test_instant_matches_take_what_no_batch_took(database_url: str, tmp_path: Path) -> None:
    periods = replace(PERIODS, batch_seconds=0.05)
    async with running_exchange(database_url, tmp_path / "exchange", periods=periods) as exchange:
        node = await ScriptedNode.enrol(exchange)
        await node.open(offer=ONE_GPU)
        await node.lease_of(await waiting(exchange, "0.50/h"))
        await node.close()
