"""A node that beats and says nothing of a run holds the renter's money only for so long."""

from __future__ import annotations

from typing import Any

from integration.app.conftest import World
from integration.app.test_way_of_a_job import metered, started
from perak.app import watch
from perak.app.periods import Periods

PERIODS = Periods(start_within_seconds=600, report_within_seconds=300)
HOUR = 3600


async def end_stuck(world: World, *, periods: Periods = PERIODS) -> list[str]:
    """What the watch does by itself, on a node that beats; the runs that it ended."""
    async with world.db.transaction() as tx:
        due = await watch.unreported_runs(tx, periods=periods, now=world.now)
    for run, node in due:
        async with world.db.transaction() as tx:
            await watch.end_unreported(
                tx, run=run, node=node, periods=periods, context=world.context, now=world.now
            )
    return [run for run, _ in due]


async def running(world: World) -> tuple[str, dict[str, Any]]:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    await world.report(started(lease, world.now_ms))
    return job, lease


async def test_a_run_whose_end_is_not_reported_ends_and_its_job_is_run_again(world: World) -> None:
    job, lease = await running(world)
    world.wait(1000)
    await world.report(metered(lease, world.now_ms))  # The last evidence: then the agent is stuck.
    world.wait(HOUR - 1000 + 299)
    assert await end_stuck(world) == []
    world.wait(2)
    assert await end_stuck(world) == [lease["run"]]
    ended = await world.lease(job)
    assert (ended["state"], ended["run_state"]) == ("fenced", "fenced")
    assert world.signed[0].billed_seconds == 1000
    assert (await world.job(job))["state"] == "queued"
    node = await world.one("select notice from node where id = $1", world.node)
    assert "did not report the run's end within 300 s of its max_duration" in node["notice"]
    # It wakes up after all, and settles nothing: its epoch is over.
    before = await world.balances()
    await world.report(metered(lease, world.now_ms))
    assert await world.balances() == before
    await world.clear()
    assert (await world.lease(job))["epoch"] == lease["epoch"] + 1


async def test_a_run_that_never_starts_is_taken_back_and_costs_nothing(world: World) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    world.wait(601)
    assert await end_stuck(world) == [lease["run"]]
    assert (await world.job(job))["state"] == "queued"
    assert (await world.balances())["wallet renters"] == 10_000_000


async def test_a_cancelled_run_is_not_waited_for_until_its_max_duration(world: World) -> None:
    job, lease = await running(world)
    world.wait(10)
    await world.cancel(job)
    world.wait(301)
    assert await end_stuck(world) == [lease["run"]]
    assert (await world.job(job))["state"] == "cancelled"
    assert (await world.one("select sum(pending)::int as held from account"))["held"] == 0


async def test_silence_of_the_node_and_absence_of_the_exchange_do_not_count(world: World) -> None:
    """The node has as long to report as if it had been heard all the time."""
    job, _ = await running(world)
    async with world.db.transaction() as tx:
        await watch.keep_alive(tx, periods=PERIODS, now=world.now)
        await tx.leases.suspect(node=world.node, now=world.now)
    world.wait(3 * HOUR)  # Cut off, and back.
    await world.connect()
    assert await end_stuck(world) == []
    async with world.db.transaction() as tx:
        assert await watch.keep_alive(tx, periods=PERIODS, now=world.now), "and as long without exchange"
    world.wait(HOUR + 299)
    assert await end_stuck(world) == []
    world.wait(3 * HOUR + 2)
    assert len(await end_stuck(world)) == 1
    assert (await world.job(job))["state"] == "queued"
