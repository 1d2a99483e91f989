"""Windows that are reserved, on a real PostgreSQL: booked, kept, begun, ended, moved and refunded."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from integration.app.conftest import PROVIDER, RENTER, World, ask
from integration.app.test_way_of_a_job import exited, started
from perak.adapters.db.reservations import PgReservations
from perak.adapters.db.views.jobs import get_job
from perak.adapters.db.views.reservations import window_of
from perak.app import jobs, nodes, reservations, watch
from perak.app.periods import Periods
from perak.app.reservations import END_BEFORE_SECONDS, RESERVATIONS_MAX
from perak.domain.errors import Conflict, InsufficientFunds, InvalidInput, TooManyRequests
from perak.domain.job import JobSpec, Limits, Reserve, Resources
from perak.domain.market.windows import PREPARE_SECONDS
from perak.domain.offer import Device
from perak.domain.report import OfferPosted

HOUR = 3600
PRICE = 200_000
PERIODS = Periods()


def gpus(count: int) -> tuple[Device, ...]:
    return tuple(
        Device(
            index=at, kind="nvidia", model="Tesla V100-SXM2-16GB", uuid=f"GPU-{at}", memory_bytes=16 * 2**30
        )
        for at in range(count)
    )


def spec(*, hours: float = 1.0, reserve: Reserve | None = None, **changes: Any) -> JobSpec:
    seconds = int(hours * HOUR) if reserve is None else reserve.seconds
    fields: dict[str, Any] = {
        "name": "kept",
        "run": "true",
        "resources": Resources(gpu_count=1, cpu_milli=500, memory_bytes=10**9),
        "limits": Limits(max_duration_seconds=seconds),
        "reserve": reserve,
    }
    return JobSpec(**{**fields, **changes})


def window(world: World, start: float, hours: float) -> Reserve:
    return Reserve(start_at=world.now + timedelta(hours=start), seconds=int(hours * HOUR))


async def offered(world: World, *, count: int = 1, price: int = PRICE) -> None:
    await world.report(OfferPosted(offer=ask(devices=gpus(count), price_gpu=price)))


async def reserved(world: World, asked: JobSpec) -> str:
    async with world.db.transaction() as tx:
        await tx.single("market")
        job, _ = await jobs.submit(
            tx, caller=RENTER, spec=asked, tree={}, new_id=world.context.new_id, now=world.now
        )
        store = PgReservations(tx.connection)
        await reservations.book(tx, store, caller=RENTER, job=job, spec=asked, now=world.now)
    return job


async def keep(world: World) -> None:
    """What the exchange does about windows every second."""
    async with world.db.transaction() as tx:
        stops = await reservations.to_stop(PgReservations(tx.connection), now=world.now)
    for each in stops:
        async with world.db.transaction() as tx:
            await reservations.stop(tx, each, now=world.now)
    async with world.db.transaction() as tx:
        due = await reservations.due(PgReservations(tx.connection), now=world.now)
    for job in due:
        async with world.db.transaction() as tx:
            store = PgReservations(tx.connection)
            await reservations.begin(tx, store, job, new_id=world.context.new_id, now=world.now)


async def beside(world: World, price: int) -> World:
    """A second node with one GPU at that price."""
    make, chain = world.context.new_id, timedelta(days=1)
    other = World(db=world.db, node=make("node"), context=world.context, now=world.now)
    async with world.db.transaction() as tx:
        await nodes.invite(
            tx, caller=PROVIDER, secret_hash=b"more", uses=1, ttl_seconds=60, new_id=make, now=world.now
        )
        new = nodes.NewNode(
            id=other.node, name="node-2", sign_key=b"t" * 32, seal_key=b"y" * 32, certificate_chain="",
            certificate_expires_at=world.now + chain,
        )  # fmt: skip
        await nodes.enrol(tx, node=new, secret_hash=b"more", now=world.now)
    await other.connect()
    await other.report(OfferPosted(offer=ask(devices=gpus(1), price_gpu=price)))
    return other


async def kept(world: World, job: str) -> dict[str, Any]:
    return await world.one("select * from reservation where job_id = $1", job)


async def held(world: World, job: str) -> int:
    async with world.db.transaction() as tx:
        return sum(each.amount for each in await tx.ledger.held(job))


async def said(world: World, job: str) -> str:
    async with world.db.connection() as connection:
        found = await window_of(connection, job)
    assert found is not None
    return "; ".join(found.lines("USD"))


async def test_the_whole_window_is_held_and_its_device_is_kept_free(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 4, 3)))

    assert await held(world, job) == 3 * PRICE
    long, short = await world.submit(spec(hours=4)), await world.submit(spec(hours=3))
    await world.clear()

    assert (await world.job(long))["state"] == "queued"
    assert (await world.job(short))["state"] == "leased"
    assert (await world.job(job))["state"] == "queued"
    async with world.db.connection() as connection:
        shown = await get_job(connection, job, project=RENTER.project)
    assert shown is not None
    assert shown.reservation is not None
    assert (shown.reservation.cost, shown.reservation.devices) == ("0.60", ["GPU-0"])


async def test_it_begins_at_its_start_at_the_price_agreed_and_is_paid_by_evidence(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 4, 3)))
    await offered(world, price=5 * PRICE)

    world.wait(4 * HOUR - 1)
    await keep(world)
    assert (await world.job(job))["state"] == "queued"
    world.wait(1)
    await keep(world)
    lease = await world.lease(job)
    assert (lease["price"], lease["devices"], lease["max_duration_seconds"]) == (PRICE, ["GPU-0"], 3 * HOUR)
    assert (await kept(world, job))["state"] == "begun"

    begin = world.now_ms
    await world.report(started(lease, begin))
    world.wait(HOUR)
    await world.report(exited(lease, begin=begin, end=world.now_ms))

    assert (await world.job(job))["state"] == "succeeded"
    assert (await kept(world, job))["state"] == "ended"
    balances = await world.balances()
    assert balances["wallet renters"] == 10_000_000 - PRICE
    assert sum(balances.values()) == 0
    assert await held(world, job) == 0
    other = await world.submit(spec(hours=24, limits=Limits()))
    await world.clear()
    assert (await world.job(other))["state"] == "leased"


async def test_a_run_has_ended_when_its_window_does(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 1, 1)))
    following = await reserved(world, spec(reserve=window(world, 2, 1)))
    world.wait(HOUR)
    await keep(world)
    lease, begin = await world.lease(job), world.now_ms
    await world.report(started(lease, begin))

    world.wait(HOUR - END_BEFORE_SECONDS)
    await keep(world)
    assert (await world.lease(job))["stop_cause"] == "max_duration"
    world.wait(2)
    await world.report(exited(lease, begin=begin, end=world.now_ms, cause="max_duration", exit_code=None))

    ended = await world.job(job)
    assert (ended["state"], ended["reason"]) == ("failed", "its reserved window ended")
    assert 0 < (await world.lease(job))["cost"] <= PRICE
    world.wait(10)
    await keep(world)
    assert (await world.lease(following))["devices"] == ["GPU-0"]


async def test_until_it_begins_it_is_free_to_cancel(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 4, 3)))

    await world.cancel(job)

    assert (await world.job(job))["state"] == "cancelled"
    assert (await kept(world, job))["state"] == "cancelled"
    assert await held(world, job) == 0
    assert (await world.balances())["wallet renters"] == 10_000_000
    other = await world.submit(spec(hours=24))
    await world.clear()
    assert (await world.job(other))["state"] == "leased"


async def test_where_its_node_is_gone_it_is_moved_at_no_higher_price(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 4, 3)))
    await beside(world, price=PRICE + 1)
    cheaper = PRICE - 50_000
    async with world.db.connection() as connection:
        await connection.execute("update node set name = 'dear' where name = 'node-2'")
    await world.set_mode("paused")
    world.wait(4 * HOUR)
    await keep(world)
    assert (await world.job(job))["state"] == "queued"

    async with world.db.connection() as connection:
        await connection.execute(
            "update offer set price_gpu_posted = $1 where price_gpu_posted > $2", cheaper, PRICE
        )
    world.wait(reservations.RETRY_SECONDS)
    await keep(world)

    assert (await world.job(job))["state"] == "leased"
    assert (await world.lease(job))["price"] == cheaper
    assert (await kept(world, job))["state"] == "begun"
    assert "it was moved to dear at 0.15 per device-hour" in await said(world, job)


async def test_where_no_other_fits_all_is_refunded_and_said(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 4, 3), disconnect_grace_seconds=60))
    await beside(world, price=PRICE + 1)
    await world.set_mode("paused")
    world.wait(4 * HOUR + 7200)  # The exchange was away, too: that counts against nobody.
    await keep(world)
    assert (await world.job(job))["state"] == "queued"

    world.wait(61)
    await keep(world)

    failed = await world.job(job)
    assert failed["state"] == "failed"
    assert "node-1 takes no work now" in failed["reason"]
    assert (await kept(world, job))["state"] == "lost"
    assert await held(world, job) == 0
    assert (await world.balances())["wallet renters"] == 10_000_000
    assert "all that was held is refunded" in await said(world, job)


async def test_a_node_that_returns_within_the_grace_keeps_it(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 1, 1)))
    await world.set_mode("paused")
    world.wait(HOUR)
    await keep(world)

    await world.set_mode("accepting")
    world.wait(20)
    await keep(world)

    assert (await world.lease(job))["max_duration_seconds"] == HOUR - 20


async def test_a_run_that_was_lost_is_run_again_in_what_is_left_of_the_window(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world, count=2)
    job = await reserved(world, spec(reserve=window(world, 1, 2), disconnect_grace_seconds=0))
    world.wait(HOUR)
    await keep(world)
    first = await world.lease(job)
    await world.report(started(first, world.now_ms))
    world.wait(600)
    await world.report(
        exited(first, begin=world.now_ms - 600_000, end=world.now_ms, cause="device_fault", exit_code=None)
    )
    assert (await world.job(job))["state"] == "queued"
    long = await world.submit(
        spec(hours=24, resources=Resources(gpu_count=2, cpu_milli=500, memory_bytes=10**9))
    )
    await world.clear()
    assert (await world.job(long))["state"] == "queued"

    await keep(world)

    again = await world.lease(job)
    assert (again["epoch"], again["max_duration_seconds"]) == (2, 2 * HOUR - 600)
    assert await held(world, job) == 2 * PRICE - PRICE // 6
    world.wait(2 * HOUR)
    async with world.db.transaction() as tx:
        await watch.suspect_silent(tx, periods=PERIODS, now=world.now)


async def test_a_window_without_a_run_is_over_when_it_ends(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    job = await reserved(world, spec(reserve=window(world, 1, 1)))
    world.wait(2 * HOUR)

    await keep(world)

    assert (await world.job(job))["state"] == "failed"
    assert (await kept(world, job))["state"] == "lost"
    assert (await world.balances())["wallet renters"] == 10_000_000


async def test_who_overstays_makes_way(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    other = await world.submit(spec(hours=1))
    await world.clear()
    with pytest.raises(Conflict, match="no offer has room"):
        await reserved(world, spec(reserve=window(world, 1, 1)))
    job = await reserved(world, spec(reserve=window(world, 1 + PREPARE_SECONDS / HOUR, 1)))

    world.wait(HOUR + PREPARE_SECONDS - 40)
    await keep(world)
    assert (await world.lease(other))["stop_cause"] is None
    world.wait(15)
    await keep(world)
    lease = await world.lease(other)
    assert lease["stop_cause"] == "preempted"
    world.wait(25)
    await keep(world)
    assert (await world.job(job))["state"] == "queued", "its device is still in use"
    await world.report(started(lease, world.now_ms), exited(lease, begin=world.now_ms, end=world.now_ms + 1))
    world.wait(reservations.RETRY_SECONDS)
    await keep(world)
    assert (await world.job(job))["state"] == "leased"


async def test_two_replicas_book_a_device_once(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    asked = spec(reserve=window(world, 4, 3))

    found = await asyncio.gather(reserved(world, asked), reserved(world, asked), return_exceptions=True)

    assert sorted(type(each).__name__ for each in found) == ["Conflict", "str"]
    assert (await world.one("select count(*) from reservation"))["count"] == 1


async def test_the_database_itself_keeps_windows_and_leases_apart(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world, count=2)
    job = await reserved(world, spec(reserve=window(world, 4, 3)))
    second = await reserved(world, spec(reserve=window(world, 4, 3)))
    assert (await kept(world, second))["devices"] == ["GPU-1"]
    async with world.db.connection() as connection:
        with pytest.raises(asyncpg.ExclusionViolationError):
            await connection.execute("update reservation set devices = '{GPU-0}' where job_id = $1", second)
        other = await world.submit(spec(hours=1))
        await world.clear()
        with pytest.raises(asyncpg.ExclusionViolationError):
            await connection.execute(
                """insert into lease (id, job_id, project_id, offer_id, offer_version, node_id,
                    provider_project_id, epoch, state, price, devices_milli, devices, cpu_milli, memory_bytes,
                    disk_bytes, max_duration_seconds, duration_limited_by, granted_at)
                select id || 'x', job_id, project_id, offer_id, offer_version, node_id,
                    provider_project_id, 9,
                    'ended', price, devices_milli, devices, cpu_milli, memory_bytes, disk_bytes, 18000,
                    duration_limited_by, granted_at from lease where job_id = $1""",
                other,
            )
    assert (await kept(world, job))["devices"] == ["GPU-0"]


async def test_what_can_not_be_reserved_is_refused(world: World) -> None:
    await offered(world)
    with pytest.raises(InsufficientFunds, match="which is held in full"):
        await reserved(world, spec(reserve=window(world, 4, 3)))
    await world.fund(100_000_000)
    with pytest.raises(InvalidInput, match="is past"):
        await reserved(world, spec(reserve=window(world, -1, 3)))
    with pytest.raises(InvalidInput, match="ahead; reserve it later"):
        await reserved(world, spec(reserve=window(world, 24 * 31, 3)))
    with pytest.raises(Conflict, match="no offer has room for this job from 2026-11-02 16:00 UTC for 3h"):
        await reserved(world, spec(reserve=window(world, 4, 3), regions=("FR",)))
    for number in range(RESERVATIONS_MAX):
        await reserved(world, spec(reserve=window(world, 4 + number, 1)))
    with pytest.raises(TooManyRequests, match="windows reserved already"):
        await reserved(world, spec(reserve=window(world, 100, 1)))
    assert (await world.one("select count(*) from job"))["count"] == RESERVATIONS_MAX


CLASHES = """
with used as (
    select job_id, unnest(devices) as uuid, tstzrange(granted_at, coalesce(ended_at,
        granted_at + make_interval(secs => max_duration_seconds))) as during from lease
    union all
    select job_id, uuid, during from reserved_device
)
select count(*) from used a join used b on a.job_id < b.job_id and a.uuid = b.uuid and a.during && b.during
"""


@pytest.mark.parametrize("seed", range(3))
async def test_no_device_is_ever_promised_twice(world: World, seed: int) -> None:
    """Random windows, jobs, cancellations and ends; after each step the database holds no clash."""
    luck = random.Random(seed)
    await world.fund(1_000_000_000)
    await offered(world, count=2)
    live: list[str] = []
    for _ in range(25):
        what = luck.choice(["book", "book", "submit", "submit", "wait", "end", "cancel"])
        if what == "book":
            asked = spec(reserve=window(world, luck.randint(1, 12) / 2, luck.randint(1, 6) / 2))
            try:
                live.append(await reserved(world, asked))
            except (Conflict, TooManyRequests):
                continue
        elif what == "submit":
            live.append(await world.submit(spec(hours=luck.randint(1, 8) / 2)))
            await world.clear()
        elif what == "wait":
            world.wait(luck.randint(1, 4) * HOUR / 2)
            for job in live:
                await end(world, job, only_over=True)
            await keep(world)
            await world.clear()
        elif live:
            job = live.pop(luck.randrange(len(live)))
            await (world.cancel(job) if what == "cancel" else end(world, job))
        assert (await world.one(CLASHES))["count"] == 0, f"seed {seed}"
    assert sum((await world.balances()).values()) == 0


async def end(world: World, job: str, *, only_over: bool = False) -> None:
    """The run's node says that it ended; `only_over`: where its time is over."""
    async with world.db.connection() as connection:
        row = await connection.fetchrow(
            """select run.id as run, lease.id, lease.epoch, granted_at,
                granted_at + make_interval(secs => max_duration_seconds) as over
            from lease join run on run.lease_id = lease.id
            where lease.job_id = $1 and lease.state in ('active', 'suspected')""",
            job,
        )
    if row is None or (only_over and row["over"] > world.now):
        return
    begin, until = row["granted_at"], min(row["over"], world.now)
    lease = {"run": row["run"], "id": row["id"], "epoch": row["epoch"]}
    await world.report(started(lease, ms(begin)), exited(lease, begin=ms(begin), end=ms(until)))


def ms(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() * 1000)


async def test_a_quote_is_not_honoured_into_a_window(world: World) -> None:
    """The job of a quote may ask for longer than what was quoted."""
    from integration.app.test_quotes_held import hold, run_at

    await world.fund(10_000_000)
    await offered(world, count=2)
    await reserved(world, spec(reserve=window(world, 2, 1)))
    await reserved(world, spec(reserve=window(world, 2, 1)))
    short = spec(hours=1)
    quote = await hold(world, short)

    with pytest.raises(Conflict, match="reserved: needs room until"):
        await run_at(world, quote.id, replace(short, limits=Limits(max_duration_seconds=5 * HOUR)))
    await run_at(world, quote.id, short)
