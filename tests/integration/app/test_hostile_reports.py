"""A node that says what can't be, on a real PostgreSQL: refused by name, billed by the exchange's clock."""

from __future__ import annotations

from typing import Any

import pytest

from integration.app.conftest import World, ask
from integration.app.test_way_of_a_job import exited, metered, started
from perak.app import reports
from perak.domain.job import JobSpec, Retry
from perak.domain.offer import Device, Hours
from perak.domain.plausible import CLOCK_SKEW_SECONDS_MAX, Implausible
from perak.domain.report import Body, OfferPosted, Report, RunPreparing, RunRefused

DAY_MS = 86_400_000


async def pass_over(world: World, body: Body) -> None:
    report = Report(seq=world.seq + 1, node=world.node, at=world.now_ms, body=body, jws="jws")
    async with world.db.transaction() as tx:
        world.seq, _ = await reports.pass_over(
            tx,
            node_id=world.node,
            report=report,
            subject="report",
            reason="no",
            context=world.context,
            now=world.now,
        )


async def test_a_node_a_day_behind_is_billed_by_the_exchanges_clock(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    world.wait(100)
    # It claims to have begun a day ago; the lease has existed for 100 s.
    await world.report(exited(lease, begin=world.now_ms - DAY_MS, end=world.now_ms))
    assert (await world.lease(job))["cost"] == 2_500
    assert (await world.job(job))["state"] == "succeeded"


async def test_evidence_from_the_future_is_refused_and_holds_nothing(world: World) -> None:
    await world.fund(40_000)
    job = await world.submit(JobSpec(name="long", run="x"))
    await world.clear()
    lease = await world.lease(job)
    await world.report(started(lease, world.now_ms))
    world.wait(5)
    for until in (world.now_ms + DAY_MS, -1, 10**400):
        with pytest.raises(Implausible, match="until"):
            await world.report(metered(lease, until))
    # Within the skew that is taken, a fast clock still holds no more than the lease's own life needs.
    await world.report(metered(lease, world.now_ms + (CLOCK_SKEW_SECONDS_MAX - 1) * 1000))
    assert (await world.one("select pending from account where kind = 'wallet' and pending > 0")) == {
        "pending": 15_000 + 15_000
    }
    assert (await world.lease(job))["stop_cause"] is None


IMPOSSIBLE_ENDS: tuple[dict[str, object], ...] = (
    {"energy_joules": 1e300},
    {"energy_joules": float("nan")},
    {"energy_joules": -1.0},
    {"log_bytes": -5},
    {"log_bytes": 2**70},
    {"exit_code": 2**40},
    {"ended_at": 10**18},
    {"started_at": -1},
    {"cause": "x" * 300},
    {"cause": "a\0b"},
    {"memory_peak_bytes": 2**80},
)


async def test_an_end_that_can_not_be_is_refused_and_frees_the_renters_money(world: World) -> None:
    await world.fund(10_000_000)
    for wrong in IMPOSSIBLE_ENDS:
        job = await world.submit(retry=Retry(max_attempts=1))
        await world.clear()
        lease = await world.lease(job)
        begin = world.now_ms
        await world.report(started(lease, begin))
        world.wait(10)
        await world.report(metered(lease, world.now_ms))
        world.wait(50)
        end = exited(lease, begin=begin, end=world.now_ms, **wrong)
        with pytest.raises(Implausible, match=next(iter(wrong))):
            await world.report(end)
        await pass_over(world, end)
        # Billed to the last evidence that was taken, 10 s in; the job could run again elsewhere.
        ended, row = await world.lease(job), await world.job(job)
        assert (ended["state"], ended["cost"]) == ("fenced", 250), wrong
        assert (row["state"], row["reason"]) == ("failed", "the node was lost, on its only attempt"), wrong
    assert (await world.balances())["escrow"] == 0
    assert (await world.one("select pending from account where kind = 'wallet' and posted > 0")) == {
        "pending": 0
    }
    # What follows is taken as ever.
    await world.report(OfferPosted(offer=ask()))


async def test_a_refusal_that_can_not_be_ends_the_run_too(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    refused = RunRefused(run=lease["run"], lease=lease["id"], epoch=1, cause="c" * 999, detail="")
    with pytest.raises(Implausible, match="cause"):
        await world.report(refused)
    await pass_over(world, refused)
    assert ((await world.lease(job))["state"], (await world.lease(job))["cost"]) == ("fenced", 0)


async def test_what_a_node_says_for_people_may_hold_anything(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    await world.report(RunPreparing(run=lease["run"], lease=lease["id"], epoch=1, detail="\0\x1b[2J" * 9_000))
    await world.report(
        RunRefused(run=lease["run"], lease=lease["id"], epoch=1, cause="setup", detail="\0" * 90_000)
    )
    assert (await world.job(job))["state"] == "failed"


CARD: dict[str, Any] = {
    "index": 0,
    "kind": "nvidia",
    "model": "V100",
    "uuid": "GPU-1",
    "memory_bytes": 16 * 2**30,
}


IMPOSSIBLE_OFFERS: tuple[tuple[dict[str, object], str], ...] = (
    ({"cpu_milli": 10**12}, "cpu_milli"),
    ({"cpu_milli": -1}, "cpu_milli"),
    ({"memory_bytes": 2**70}, "memory_bytes"),
    ({"price_cpu": -5}, "price_cpu"),
    ({"price_cpu": 10**30}, "price_cpu"),
    ({"region": "a\0b"}, "region"),
    ({"cpu_model": "x" * 5_000}, "cpu_model"),
    ({"devices": tuple(Device(**{**CARD, "uuid": f"GPU-{i}"}) for i in range(65))}, "devices"),
    ({"devices": (Device(**CARD),) * 2}, "uuid"),
    ({"devices": (Device(**{**CARD, "memory_bytes": -1}),)}, "memory_bytes"),
    ({"devices": (Device(**{**CARD, "power_limit_watts": 1e300}),)}, "power_limit_watts"),
    ({"hours": (Hours(start_minute=-1, end_minute=9_999),)}, "start_minute"),
)


async def test_an_offer_of_what_no_machine_has_changes_nothing(world: World) -> None:
    before = await world.one("select version, ask from offer")
    for wrong, named in IMPOSSIBLE_OFFERS:
        with pytest.raises(Implausible, match=named):
            await world.report(OfferPosted(offer=ask(**wrong)))
    assert await world.one("select version, ask from offer") == before
