"""What the market remembers: a workload's past, what was foretold, and what was traded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from integration.app.conftest import PROVIDER, RENTER, World
from integration.app.test_way_of_a_job import exited, started
from perak.adapters.db import prices
from perak.adapters.db.views.why import job_place
from perak.adapters.db.workloads import REMEMBER_SECONDS, PastMemory, PgWorkloads, accuracy
from perak.app import market
from perak.domain.job import JobSpec, Work
from perak.domain.market.history import RENTERS_MIN, fingerprint
from perak.domain.market.ticker import history
from perak.domain.report import OutputBlob

SPEC = JobSpec(name="again", run="python train.py", work=Work(device="cpu", hours=0.5))


async def clear(world: World) -> None:
    async with world.db.transaction() as tx:
        await market.clear(
            tx, new_id=world.context.new_id, now=world.now, workloads=PgWorkloads(tx.connection)
        )


async def run_once(world: World, seconds: float, **end: Any) -> str:
    job = await world.submit(SPEC)
    await clear(world)
    lease = await world.lease(job)
    begin = world.now_ms
    await world.report(started(lease, begin))
    world.wait(seconds)
    await world.report(exited(lease, begin=begin, end=world.now_ms, **end))
    return job


async def past(world: World, project: str) -> Any:
    async with world.db.transaction() as tx:
        found = await PgWorkloads(tx.connection).past([fingerprint(SPEC)], project=project)
    return found.get(fingerprint(SPEC), ())


async def test_what_was_read_of_a_workload_is_remembered_for_a_while(world: World) -> None:
    await world.fund(10_000_000)
    await run_once(world, 100)
    at = 0.0
    memory = PastMemory(seconds=lambda: at)

    async def runs() -> int:
        async with world.db.transaction() as tx:
            known = PgWorkloads(tx.connection, memory=memory)
            (own,) = (await known.past([fingerprint(SPEC)], project=RENTER.project))[fingerprint(SPEC)]
            assert await known.past([fingerprint(SPEC)], project=PROVIDER.project) == {}
        return int(own.runs)

    assert await runs() == 1
    await run_once(world, 100)
    at = REMEMBER_SECONDS - 1
    assert await runs() == 1
    at = REMEMBER_SECONDS
    assert await runs() == 2


async def test_what_a_workload_took_is_known_to_its_renter_and_to_others_only_of_five(world: World) -> None:
    await world.fund(10_000_000)
    for seconds in (100, 120, 110):
        await run_once(world, seconds)
    await run_once(world, 5, exit_code=1)  # Its own error tells nothing of how long it takes.

    (own,) = await past(world, RENTER.project)

    assert (own.device, own.runs, own.own, own.median_seconds) == ("250m x Test CPU", 3, True, 110.0)
    assert own.median_joules == 360.0
    assert await past(world, PROVIDER.project) == ()

    for number in range(RENTERS_MIN):
        if number < RENTERS_MIN - 1:
            assert await past(world, PROVIDER.project) == ()
        await give_to_another(world, await run_once(world, 200), number)
    (shared,) = await past(world, PROVIDER.project)
    assert (shared.own, shared.runs, shared.renters) == (False, 3 + RENTERS_MIN, 1 + RENTERS_MIN)


async def give_to_another(world: World, job: str, number: int) -> None:
    """As if another renter had run it."""
    async with world.db.transaction() as tx:
        project = f"project-{number}@test"
        await tx.keys.insert_project(id=project, name=f"other-{number}", now=world.now)
        await tx.connection.execute("alter table receipt disable trigger user")
        await tx.connection.execute("update receipt set project_id = $2 where job_id = $1", job, project)
        await tx.connection.execute("alter table receipt enable trigger user")


async def test_what_was_foretold_is_held_against_what_it_took(world: World) -> None:
    await world.fund(10_000_000)
    await run_once(world, 900)  # Declared: 1800 s.
    await run_once(world, 1000)  # Foretold from the first: 900 s.

    async with world.db.connection() as connection:
        rows = {row["source"]: row for row in await accuracy(connection, since=world.now - timedelta(days=1))}

    assert (rows["declared work"]["runs"], rows["declared work"]["median"]) == (1, 2.0)
    assert (rows["history"]["runs"], rows["history"]["median"]) == (1, 0.9)
    assert rows["history"]["inside"] == 1.0


async def test_what_a_workload_left_is_known_to_its_own_renter(world: World) -> None:
    await world.fund(10_000_000)
    for size in (100, 300, 200):
        blob = OutputBlob(digest=None, size_bytes=size, file_count=1)
        await run_once(world, 10, outputs=blob)

    async with world.db.connection() as connection:
        workloads = PgWorkloads(connection)
        assert await workloads.outputs_bytes(fingerprint(SPEC), project=RENTER.project) == 200
        assert await workloads.outputs_bytes(fingerprint(SPEC), project=PROVIDER.project) is None


async def test_why_a_job_was_placed_is_told_of_that_moment(world: World) -> None:
    await world.fund(10_000_000)
    placed_at = world.now
    job = await world.submit(SPEC)
    await clear(world)
    world.wait(3600)

    async with world.db.connection() as connection:
        found = await job_place(connection, job, project=RENTER.project)

    assert found is not None
    assert found.placed is not None
    assert (found.placed.at, found.placed.beside) == (placed_at, ())
    assert found.placed.forecast_seconds == 1800


async def test_the_price_history_names_nobody_and_marks_thin_cells(world: World) -> None:
    await world.fund(10_000_000)
    for _ in range(5):
        await run_once(world, 10)
    cancelled = await world.submit(JobSpec(name="never", run="true"))
    await world.cancel(cancelled)
    async with world.db.transaction() as tx:
        await prices.sample(tx.connection, now=world.now, every_seconds=60)
        await prices.sample(tx.connection, now=world.now, every_seconds=60)

    async with world.db.connection() as connection:
        since, until = world.now - timedelta(hours=2), world.now + timedelta(hours=1)
        cells = history(
            await prices.happened(connection, since=since, until=until),
            await prices.used(connection, since=since, until=until),
        )

    (traded,) = [cell for cell in cells if cell.trades]
    assert (traded.model, traded.region, traded.gpu) == ("Test CPU", "DE", False)
    assert (traded.trades, traded.thin, traded.p10, traded.median, traded.p90) == (
        5, False, 360_000, 360_000, 360_000,
    )  # fmt: skip
    assert traded.devices == 5 * 0.25
    assert traded.utilisation == 0.0
    assert traded.offers >= 1
    (wanted,) = [cell for cell in cells if cell.bids]
    assert (wanted.model, wanted.bids, wanted.cancellations, wanted.thin) == ("any", 6, 1, True)
