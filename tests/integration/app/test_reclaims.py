"""Owners take machines back: renters are told as long before as promised, and no run is stopped sooner."""

from __future__ import annotations

import re
from typing import Any

import pytest

from integration.app.conftest import World, ask
from integration.app.test_way_of_a_job import exited, started
from perak.adapters.db.reclaims import PgReclaims
from perak.adapters.db.views.jobs import get_job_detail
from perak.app import reclaim, reservations
from perak.domain.errors import InvalidInput
from perak.domain.report import OfferPosted

HOUR = 3600


async def running(world: World, **offer: Any) -> tuple[str, dict[str, Any]]:
    """A job that runs on the node, whose offer says so much more."""
    await world.fund(10_000_000)
    await world.report(OfferPosted(offer=ask(**offer)))
    job = await world.submit()
    await world.clear()
    lease = await world.lease(job)
    await world.report(started(lease, world.now_ms))
    return job, lease


async def look(world: World) -> None:
    """What the exchange does about machines every second."""
    async with world.db.transaction() as tx:
        await reclaim.tell(tx, PgReclaims(tx.connection), now=world.now)
    async with world.db.transaction() as tx:
        stops = await reclaim.to_stop(PgReclaims(tx.connection), now=world.now)
    for each in stops:
        async with world.db.transaction() as tx:
            await reservations.stop(tx, each, now=world.now)


async def told(world: World, job: str) -> list[str]:
    async with world.db.connection() as connection:
        rows = await connection.fetch(
            "select detail from job_event where job_id = $1 and detail ~ 'owner' order by seq", job
        )
    return [row["detail"] for row in rows]


async def test_a_drain_to_a_time_tells_the_renter_at_once_and_stops_the_run_then(world: World) -> None:
    job, lease = await running(world, reclaim_notice_seconds=HOUR)
    await world.set_mode("draining", 2 * HOUR)
    (line,) = await told(world, job)
    assert line.startswith("the owner takes node-1 back at 2026-11-02 14:00 UTC; a run that has not ended by")
    async with world.db.connection() as connection:
        shown = await get_job_detail(connection, job, project=(await world.job(job))["project_id"])
    assert shown is not None
    assert shown.runs[0].reclaim_at is not None
    assert shown.runs[0].reclaim_notice_seconds == HOUR
    world.wait(2 * HOUR - 1)
    await look(world)
    assert (await world.lease(job))["stop_cause"] is None
    assert len(await told(world, job)) == 1, "nothing is said twice"
    world.wait(2)
    await look(world)
    assert (await world.lease(job))["stop_cause"] == "reclaimed"
    begin = world.now_ms - 2 * HOUR * 1000
    await world.report(exited(lease, begin=begin, end=world.now_ms, exit_code=None, cause="reclaimed"))
    assert (await world.job(job))["state"] == "queued", "it runs again elsewhere"
    assert (await told(world, job))[-2:] == [
        "stopping: the owner takes node-1 back now",
        "queued: the owner took the machine back",
    ]


async def test_an_owner_can_t_take_it_back_sooner_than_promised_while_somebody_s_job_is_there(
    world: World,
) -> None:
    job, lease = await running(world, reclaim_notice_seconds=24 * HOUR)
    with pytest.raises(InvalidInput, match="promised 24h 00m of notice to jobs that run there"):
        await world.set_mode("draining", 2 * HOUR)
    assert (await world.one("select mode from node"))["mode"] == "accepting"
    await world.report(exited(lease, begin=world.now_ms, end=world.now_ms))
    assert (await world.job(job))["state"] == "succeeded"
    await world.set_mode("draining", 2 * HOUR)
    assert (await world.one("select reclaim_at from node"))["reclaim_at"] is not None


async def test_a_drain_without_a_time_lets_runs_go_on_to_their_end(world: World) -> None:
    job, _ = await running(world, reclaim_notice_seconds=HOUR)
    await world.set_mode("draining")
    assert await told(world, job) == [
        "the owner drains node-1: no new work goes there, and this run goes on to its end"
    ]
    await world.set_mode("draining")
    world.wait(48 * HOUR)
    await look(world)
    assert len(await told(world, job)) == 1
    assert (await world.lease(job))["stop_cause"] is None


async def test_a_node_that_is_resumed_is_not_taken_back_and_the_renter_is_told_so(world: World) -> None:
    job, _ = await running(world)
    await world.set_mode("draining", 60)
    await world.set_mode("accepting")
    assert (await told(world, job))[1:] == ["the owner takes node-1 back no more; the run goes on to its end"]
    world.wait(120)
    await look(world)
    assert (await world.lease(job))["stop_cause"] is None


async def test_the_end_of_an_offer_is_told_when_its_notice_is_due(world: World) -> None:
    ends = {"available_until_ms": world.now_ms + 5 * HOUR * 1000, "reclaim_notice_seconds": 2 * HOUR}
    job, _ = await running(world, **ends)
    world.wait(3 * HOUR - 60)
    await look(world)
    assert await told(world, job) == []
    world.wait(61)
    await look(world)
    await look(world)
    (line,) = await told(world, job)
    assert re.search("the owner takes node-1 back at 2026-11-02 17:00 UTC", line)


async def test_an_offer_that_is_ended_sooner_waits_for_what_it_promised(world: World) -> None:
    job, _ = await running(world, reclaim_notice_seconds=2 * HOUR)
    sooner = ask(available_until_ms=world.now_ms + 60_000, reclaim_notice_seconds=2 * HOUR)
    await world.report(OfferPosted(offer=sooner))
    await look(world)
    assert len(await told(world, job)) == 1
    world.wait(2 * HOUR - 1)
    await look(world)
    assert (await world.lease(job))["stop_cause"] is None
    world.wait(2)
    await look(world)
    assert (await world.lease(job))["stop_cause"] == "reclaimed"


async def test_what_was_promised_at_the_lease_holds_whatever_the_offer_says_later(world: World) -> None:
    job, _ = await running(world, reclaim_notice_seconds=2 * HOUR)
    await world.report(OfferPosted(offer=ask(available_until_ms=world.now_ms + 60_000)))
    with pytest.raises(InvalidInput, match="promised 2h 00m"):
        await world.set_mode("draining", 60)
    world.wait(61)
    await look(world)
    assert (await world.lease(job))["stop_cause"] is None
