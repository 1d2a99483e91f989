"""A quote that is held: capacity and price are kept for a minute, and it is honoured or given back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.app.conftest import RENTER, World, ask
from perak.adapters.db.quotes import PgQuotes
from perak.adapters.db.workloads import PgWorkloads
from perak.app import jobs, quotes
from perak.app.quotes import HELD_MAX, HELD_SECONDS, HeldQuote
from perak.domain.errors import Conflict, InsufficientFunds, NotFound, TooManyRequests
from perak.domain.job import JobSpec, Limits, Resources, Start, Work
from perak.domain.offer import Device
from perak.domain.report import OfferPosted

GPU = Device(index=0, kind="nvidia", model="Tesla V100-SXM2-16GB", uuid="GPU-1", memory_bytes=16 * 2**30)
SPEC = JobSpec(
    name="quoted",
    run="true",
    resources=Resources(gpu_count=1, cpu_milli=1000, memory_bytes=10**9),
    limits=Limits(max_duration_seconds=3600),
)


async def offered(world: World, price: int = 200_000) -> None:
    await world.report(OfferPosted(offer=ask(devices=(GPU,), price_gpu=price)))


async def hold(world: World, spec: JobSpec = SPEC) -> HeldQuote:
    async with world.db.transaction() as tx:
        return await quotes.hold(
            tx,
            PgQuotes(tx.connection),
            caller=RENTER,
            spec=spec,
            offers=await tx.offers.all_open(),
            new_id=world.context.new_id,
            now=world.now,
        )


async def run_at(world: World, quote: str, spec: JobSpec = SPEC) -> str:
    async with world.db.transaction() as tx:
        job, _ = await jobs.submit(
            tx, caller=RENTER, spec=spec, tree={}, new_id=world.context.new_id, now=world.now
        )
        held = sum(each.amount for each in await tx.ledger.held(job))
        await quotes.honour(
            tx,
            PgQuotes(tx.connection),
            quote,
            caller=RENTER,
            job=job,
            spec=spec,
            held=held,
            new_id=world.context.new_id,
            now=world.now,
            workloads=PgWorkloads(tx.connection),
        )
    return job


async def free(world: World) -> dict[str, Any]:
    return await world.one(
        """select used_cpu_milli,
            (select count(*) from device where lease_id is null and quote_id is null) as free from offer"""
    )


async def test_what_a_quote_holds_is_no_others_and_its_price_stays(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    quote = await hold(world)
    other = await world.submit(SPEC)

    await world.clear()
    assert (await world.job(other))["state"] == "queued"
    await offered(world, price=900_000)
    job = await run_at(world, quote.id)

    assert (await world.job(job))["state"] == "leased"
    lease = await world.one("select price, devices from lease where job_id = $1", job)
    assert lease == {"price": 200_000, "devices": ["GPU-1"]}
    assert (await world.one("select state, job_id from quote")) == {"state": "used", "job_id": job}


async def test_what_is_expected_at_a_held_quote_is_kept_as_of_any_placement(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    declared = replace(SPEC, work=Work(device="V100 SXM2 16GB", hours=0.5))
    quote = await hold(world, declared)

    job = await run_at(world, quote.id, declared)

    kept = await world.one(
        "select seconds, source from forecast join lease on lease.id = lease_id where job_id = $1", job
    )
    assert kept == {"seconds": 1800.0, "source": "declared work"}


async def test_a_job_that_may_wait_is_held_a_part_for_now(world: World) -> None:
    await offered(world)

    quote = await hold(world, replace(SPEC, start=Start(within_seconds=8 * 3600)))

    assert quote.price == 200_000


async def test_asking_costs_nothing_and_what_nobody_uses_is_given_back(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    before = await world.balances()
    quote = await hold(world)
    assert await free(world) == {"used_cpu_milli": 1000, "free": 0}

    world.wait(HELD_SECONDS)
    async with world.db.transaction() as tx:
        await quotes.expire(PgQuotes(tx.connection), now=world.now)

    assert await free(world) == {"used_cpu_milli": 0, "free": 1}
    assert await world.balances() == before
    with pytest.raises(Conflict, match="has expired"):
        await run_at(world, quote.id)
    assert (await world.one("select count(*) from job"))["count"] == 0


async def test_a_quote_is_used_once_and_for_what_it_was_made(world: World) -> None:
    await world.fund(10_000_000)
    await offered(world)
    quote = await hold(world)

    with pytest.raises(Conflict, match="other resources"):
        await run_at(world, quote.id, replace(SPEC, resources=replace(SPEC.resources, cpu_milli=2000)))
    await run_at(world, quote.id)
    with pytest.raises(Conflict, match="was used by job-"):
        await run_at(world, quote.id)
    with pytest.raises(NotFound):
        await run_at(world, quote.id + "x")


async def test_a_quote_that_the_wallet_does_not_cover_stays_held(world: World) -> None:
    await offered(world)
    quote = await hold(world)

    with pytest.raises(InsufficientFunds):
        await run_at(world, quote.id)

    assert (await world.one("select state from quote"))["state"] == "held"


async def test_nobody_holds_a_market_up_for_nothing(world: World) -> None:
    small = JobSpec(name="small", run="true", resources=Resources(cpu_milli=100))
    await world.report(OfferPosted(offer=ask()))
    for _ in range(HELD_MAX):
        await hold(world, small)

    with pytest.raises(TooManyRequests):
        await hold(world, small)


async def test_where_nothing_fits_nothing_is_held(world: World) -> None:
    with pytest.raises(Conflict, match="nothing to hold"):
        await hold(world)
