"""The way of a job through the use cases, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from integration.app.conftest import RENTER, World, ask
from perak.app import market, watch
from perak.app.effects import NodeChanged
from perak.app.periods import Periods
from perak.domain.errors import Conflict, InsufficientFunds
from perak.domain.job import JobSpec, Limits, Resources, Retry
from perak.domain.offer import Device
from perak.domain.report import LogChunk, Metered, OfferPosted, RunExited, RunRefused, RunStarted

HOUR = 3600


def started(lease: dict[str, Any], at: int) -> RunStarted:
    return RunStarted(
        run=lease["run"], lease=lease["id"], epoch=lease["epoch"], started_at=at, tier="bubblewrap"
    )


def exited(lease: dict[str, Any], *, begin: int | None, end: int, **changes: Any) -> RunExited:
    fields: dict[str, Any] = {
        "run": lease["run"],
        "lease": lease["id"],
        "epoch": lease["epoch"],
        "started_at": begin,
        "ended_at": end,
        "exit_code": 0,
        "cause": "exited",
        "detail": None,
        "cpu_seconds": 1.0,
        "memory_peak_bytes": 10**6,
        "energy_joules": 360.0,
        "energy_method": "model",
        "energy_uncertainty_percent": 70.0,
        "log_bytes": 0,
    }
    return RunExited(**{**fields, **changes})


def metered(lease: dict[str, Any], until: int) -> Metered:
    return Metered(
        run=lease["run"],
        lease=lease["id"],
        epoch=lease["epoch"],
        until=until,
        cpu_seconds=1.0,
        memory_bytes=1,
        energy_joules=10.0,
        energy_method="model",
    )


async def test_a_job_is_matched_run_paid_and_receipted(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    # A quarter of a core at 0.36/core-hour for an hour.
    assert (await world.balances())["wallet renters"] == 10_000_000
    assert (await world.one("select pending from account where kind = 'wallet' and pending > 0")) == {
        "pending": 90_000
    }
    assert NodeChanged(world.node) in await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    assert (await world.job(job))["state"] == "running"
    world.wait(100)
    await world.report(
        LogChunk(run=lease["run"], lease=lease["id"], epoch=1, offset=0, data=b"hi\n"),
        exited(lease, begin=begin, end=world.now_ms, log_bytes=3),
    )
    assert (await world.job(job))["state"] == "succeeded"
    # 100 s x 0.25 cores x 0.36/h = 0.0025; the fee is 2%.
    balances = await world.balances()
    assert balances["earnings providers"] == 2_450
    assert balances["fees"] == 50
    assert balances["wallet renters"] == 10_000_000 - 2_500
    assert balances["escrow"] == 0
    assert sum(balances.values()) == 0
    (receipt,) = world.signed
    assert (receipt.cost_micros, receipt.billed_seconds, receipt.refunded_micros) == (2_500, 100, 87_500)
    offer = await world.one("select used_cpu_milli, used_memory_bytes, used_disk_bytes from offer")
    assert set(offer.values()) == {0}


async def test_reports_are_applied_once_and_in_order(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    world.wait(10)
    end = exited(lease, begin=begin, end=world.now_ms)
    await world.report(started(lease, begin), end)
    before = await world.balances()
    last = world.seq
    assert await world.report(end, seq=last) == last
    assert await world.report(started(lease, begin), end, seq=last - 1) == last
    assert await world.balances() == before
    with pytest.raises(Conflict, match="came after"):
        await world.report(end, seq=last + 2)


async def test_a_repeated_or_overlapping_log_chunk_is_kept_once(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)

    def chunk(offset: int, data: bytes) -> LogChunk:
        return LogChunk(run=lease["run"], lease=lease["id"], epoch=1, offset=offset, data=data)

    await world.report(chunk(0, b"one\n"), chunk(0, b"one\n"), chunk(2, b"e\ntwo\n"))
    rows = await world.one("select string_agg(data, '' order by start) as log from log_chunk")
    assert rows["log"] == b"one\ntwo\n"


async def test_a_cancellation_that_loses_the_race_leaves_a_success(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    await world.cancel(job)
    assert (await world.job(job))["state"] == "cancelling"
    world.wait(1)
    await world.report(exited(lease, begin=begin, end=world.now_ms))
    assert (await world.job(job))["state"] == "succeeded"
    assert await world.cancel(job) == []


async def test_a_queued_job_is_cancelled_at_once_and_refunded(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.cancel(job)
    assert (await world.job(job))["state"] == "cancelled"
    assert await world.one("select pending, posted from account where kind = 'wallet' and posted > 0") == {
        "pending": 0,
        "posted": 10_000_000,
    }


async def test_the_wallet_can_not_be_overdrawn(world: World) -> None:
    await world.fund(100_000)
    await world.submit()
    # The rest does not cover an hour; ten minutes are 15,000, which 10,000 does not cover either.
    with pytest.raises(InsufficientFunds, match="perak wallet fund"):
        await world.submit()


async def test_submits_that_race_for_the_last_money_get_it_once(world: World) -> None:
    await world.fund(100_000)
    spec = JobSpec(name="j", run="x", limits=Limits(max_cost=100_000))
    results = await asyncio.gather(*(world.submit(spec) for _ in range(4)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, InsufficientFunds)]
    assert len(refused) == 3, results


async def test_a_rolling_hold_goes_on_and_stops_cleanly_when_the_wallet_is_empty(world: World) -> None:
    await world.fund(40_000)
    job = await world.submit(JobSpec(name="long", run="x"))
    assert (await world.job(job))["hold_mode"] == "rolling"
    await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    for _ in range(400):
        world.wait(5)
        await world.report(metered(lease, world.now_ms))
        lease = await world.lease(job)
        if lease["stop_cause"]:
            break
    assert lease["stop_cause"] == "funds"
    ran = (world.now_ms - begin) / 1000
    # 40,000 micro-units buy 1,600 s of a quarter core at 0.36/h.
    assert 1500 < ran <= 1600
    await world.report(exited(lease, begin=begin, end=world.now_ms, exit_code=143, cause="funds"))
    row = await world.job(job)
    assert (row["state"], row["reason"]) == ("failed", "the wallet was empty")
    balances = await world.balances()
    assert 0 <= balances["wallet renters"] < 3_000
    assert sum(balances.values()) == 0


async def test_max_cost_bounds_the_run_and_is_named(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit(JobSpec(name="capped", run="x", limits=Limits(max_cost=1_000)))
    await world.clear()
    lease = await world.lease(job)
    assert lease["max_duration_seconds"] == 40
    begin = world.now_ms
    world.wait(41)
    await world.report(started(lease, begin))
    await world.report(exited(lease, begin=begin, end=world.now_ms, exit_code=137, cause="max_duration"))
    assert "max_cost" in (await world.job(job))["reason"]
    assert (await world.lease(job))["cost"] == 1_000


async def test_a_silent_node_is_suspected_readopted_and_fenced(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    world.wait(5)
    await world.report(metered(lease, world.now_ms))
    async with world.db.transaction() as tx:
        await watch.keep_alive(tx, periods=Periods(), now=world.now)

    async def rounds(seconds: int) -> None:
        for _ in range(seconds // 4):
            world.wait(4)
            async with world.db.transaction() as tx:
                await watch.keep_alive(tx, periods=Periods(), now=world.now)
                await watch.suspect_silent(tx, periods=Periods(), now=world.now)
                runs = await watch.overdue_runs(tx, now=world.now)
                for run in runs:
                    await watch.fence(tx, run=run, context=world.context, now=world.now)

    await rounds(20)
    assert (await world.lease(job))["state"] == "suspected"
    await world.connect()
    assert (await world.lease(job))["state"] == "active"
    await rounds(400)
    assert (await world.lease(job))["state"] == "fenced"
    row = await world.job(job)
    assert row["state"] == "queued"
    assert row["attempts"] == 1
    # Billed to the last signed evidence, 5 s in, and not a second more.
    assert (await world.balances())["earnings providers"] + (await world.balances())["fees"] == 125
    # The stale run can settle nothing.
    before = await world.balances()
    await world.connect()
    await world.report(exited(lease, begin=begin, end=world.now_ms))
    assert await world.balances() == before
    await world.clear()
    again = await world.lease(job)
    assert (again["epoch"], again["state"]) == (2, "active")


async def test_the_absence_of_the_exchange_counts_against_nobody(world: World) -> None:
    async with world.db.transaction() as tx:
        assert not await watch.keep_alive(tx, periods=Periods(), now=world.now)
    world.wait(HOUR)
    async with world.db.transaction() as tx:
        assert await watch.keep_alive(tx, periods=Periods(), now=world.now)
        await watch.suspect_silent(tx, periods=Periods(), now=world.now)
    assert (await world.one("select state from node"))["state"] == "online"


async def test_a_refused_run_costs_nothing(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    refused = RunRefused(
        run=lease["run"], lease=lease["id"], epoch=1, cause="environment", detail="no such package"
    )
    await world.report(refused)
    row = await world.job(job)
    assert row["state"] == "failed"
    assert "no such package" in row["reason"]
    assert (await world.balances())["wallet renters"] == 10_000_000
    assert (await world.one("select pending from account where kind = 'wallet' and posted > 0"))[
        "pending"
    ] == 0


async def test_a_node_that_fails_a_job_is_not_its_first_choice_again(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit(retry=Retry(max_attempts=2))
    for attempt in (1, 2):
        await world.clear()
        lease = await world.lease(job)
        assert lease["epoch"] == attempt
        await world.report(
            RunRefused(run=lease["run"], lease=lease["id"], epoch=attempt, cause="sandbox", detail="gone")
        )
    row = await world.job(job)
    assert row["state"] == "failed"
    assert "last of 2 attempts" in row["reason"]


async def test_a_full_offer_takes_no_more(world: World) -> None:
    await world.fund(100_000_000)
    jobs = [await world.submit() for _ in range(10)]
    await world.clear()
    states = [(await world.job(job))["state"] for job in jobs]
    assert states == ["leased"] * 8 + ["queued"] * 2


async def test_a_device_is_leased_to_one_run_alone(world: World) -> None:
    await world.fund(100_000_000)
    cards = tuple(
        Device(index=i, kind="nvidia", model="Tesla V100-SXM2-16GB", uuid=f"GPU-{i}", memory_bytes=16 * 2**30)
        for i in range(2)
    )
    await world.report(OfferPosted(offer=ask(devices=cards, price_gpu=180_000)))
    wanted = Resources(gpu_models=("V100",), gpu_count=1, cpu_milli=100)
    jobs = [await world.submit(resources=wanted) for _ in range(3)]
    await world.clear()
    leases = [await world.lease(job) for job in jobs[:2]]
    assert {tuple(lease["devices"]) for lease in leases} == {("GPU-0",), ("GPU-1",)}
    assert (await world.job(jobs[2]))["state"] == "queued"


async def test_offers_are_not_read_for_nobody(world: World) -> None:
    async with world.db.transaction() as tx:
        tx.offers = None  # type: ignore[assignment]  # a read of them would fail
        assert await market.clear(tx, new_id=world.context.new_id, now=world.now) == []


async def test_an_offer_that_changed_after_the_snapshot_is_not_leased(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    async with world.db.transaction() as tx:
        offers = await tx.offers.all_open()
    await world.report(OfferPosted(offer=ask(price_cpu=999_000)))
    async with world.db.transaction() as tx:
        (now_open,) = await tx.offers.all_open()
    assert now_open.version == offers[0].version + 1
    await world.clear()
    assert (await world.lease(job))["price"] == 999_000


async def test_entries_can_not_be_changed_and_balances_only_follow_transfers(world: World) -> None:
    await world.fund(1_000)
    insert = "insert into transfer (at, phase, kind, debit, credit, amount)"
    async with world.db.connection() as connection:
        for statement in (
            "update transfer set amount = 1",
            "delete from transfer",
            "truncate transfer cascade",
            "update account set posted = 5 where kind = 'wallet'",
            "delete from account",
            "update receipt set cost = 0",
            f"{insert} select now(), 'single', 'fund', id, id, 1 from account",
            f"{insert} values (now(), 'single', 'fund', 1, 2, -5)",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(statement)


async def test_a_reservation_is_resolved_once_and_for_no_more_than_it_holds(world: World) -> None:
    await world.fund(1_000_000)
    await world.submit(JobSpec(name="j", run="x", limits=Limits(max_cost=1_000)))
    async with world.db.connection() as connection:
        resolve = """insert into transfer (at, phase, kind, debit, credit, amount, pending_id)
            select now(), $1, $2, debit, credit, $3, id from transfer where phase = 'pending'"""
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="1001 of the 1000"):
            await connection.execute(resolve, "post", "capture", 1_001)
        await connection.execute(resolve, "post", "capture", 400)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(resolve, "void", "release", 0)
    assert (await world.balances())[f"wallet {RENTER.project_name}"] == 999_600


async def test_max_cost_covers_every_attempt(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit(JobSpec(name="capped", run="x", limits=Limits(max_cost=1_000)))
    for seconds in (20, 15, 5):
        await world.clear()
        lease = await world.lease(job)
        begin = world.now_ms
        await world.report(started(lease, begin))
        world.wait(seconds)
        await world.report(exited(lease, begin=begin, end=world.now_ms, exit_code=None, cause="sandbox"))
    row = await world.job(job)
    assert (row["state"], row["attempts"]) == ("failed", 3)
    assert "max_cost" in row["reason"]
    assert (await world.balances())["wallet renters"] == 10_000_000 - 1_000


async def test_a_refusal_after_the_start_or_for_no_known_cause_does_not_stop_the_node(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    await world.report(started(lease, world.now_ms))
    refused = RunRefused(run=lease["run"], lease=lease["id"], epoch=1, cause="sandbox", detail="late")
    await world.report(refused)
    assert (await world.job(job))["state"] == "running"
    second = await world.submit()
    await world.clear()
    lease = await world.lease(second)
    await world.report(
        RunRefused(run=lease["run"], lease=lease["id"], epoch=1, cause="gremlins", detail="unknown")
    )
    assert (await world.job(second))["state"] == "queued"
