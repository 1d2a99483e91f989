"""Two things at once, on a real PostgreSQL: each ends in one of the orders, and the money fits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from integration.app.conftest import PROVIDER, RENTER, START, World, ask
from perak.app import jobs, market, nodes, reports
from perak.domain.errors import Conflict, NotAuthenticated
from perak.domain.offer import OfferAsk
from perak.domain.report import OfferPosted, Report, RunExited, RunStarted

BLOCKED_SECONDS = 0.2
"""How long the second transaction is watched waiting for the first: it must not get through."""


async def running(world: World, job: str) -> dict[str, Any]:
    await world.clear()
    lease = await world.lease(job)
    started = RunStarted(run=lease["run"], lease=lease["id"], epoch=1, started_at=world.now_ms, tier="x")
    await world.report(started)
    world.wait(100)
    return lease


def the_end(world: World, lease: dict[str, Any]) -> Report:
    body = RunExited(
        run=lease["run"],
        lease=lease["id"],
        epoch=lease["epoch"],
        started_at=world.now_ms - 100_000,
        ended_at=world.now_ms,
        exit_code=0,
        cause="exited",
        detail=None,
        cpu_seconds=1.0,
        memory_peak_bytes=1,
        energy_joules=1.0,
        energy_method="model",
        energy_uncertainty_percent=70.0,
        log_bytes=0,
    )
    return Report(seq=world.seq + 1, node=world.node, at=world.now_ms, body=body, jws="jws")


async def held_open(world: World, first: Callable[[Any], Awaitable[object]], second: Awaitable[Any]) -> Any:
    """`second` begins while `first` is done and not committed; both commit."""
    async with world.db.transaction() as tx:
        await first(tx)
        task = asyncio.ensure_future(second)
        await asyncio.sleep(BLOCKED_SECONDS)
        assert not task.done(), "the second did not wait for what the first holds"
    return await task


@pytest.mark.parametrize("first", ["cancel", "completion"])
async def test_cancel_and_completion_at_once_settle_once(world: World, first: str) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    lease = await running(world, job)
    end = the_end(world, lease)

    async def cancel(tx: Any) -> None:
        await jobs.cancel(tx, caller=RENTER, job_id=job, now=world.now)

    async def complete(tx: Any) -> None:
        await reports.apply_reports(
            tx, node_id=world.node, reports=[end], context=world.context, now=world.now
        )

    async def alone(action: Callable[[Any], Awaitable[None]]) -> None:
        async with world.db.transaction() as tx:
            await action(tx)

    one, other = (cancel, complete) if first == "cancel" else (complete, cancel)
    await held_open(world, one, alone(other))
    row = await world.job(job)
    assert (row["state"], row["reason"]) == ("succeeded", None)
    balances = await world.balances()
    assert balances["wallet renters"] == 10_000_000 - 2_500
    assert balances["earnings providers"] + balances["fees"] == 2_500
    assert sum(balances.values()) == 0
    assert len(world.signed) == 1


class Interleaved:
    """A transaction in which something else is committed after the market has read its offers."""

    def __init__(self, tx: Any, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._tx = tx
        self._meanwhile = meanwhile
        self.jobs = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    async def any_pending(self) -> bool:
        return bool(await self._tx.jobs.any_pending())

    async def pending(self, **rest: Any) -> Any:
        found = await self._tx.jobs.pending(**rest)
        await self._meanwhile()
        return found


async def paused(world: World) -> None:
    offer = await world.one("select id from offer")
    setting = nodes.OfferSetting(state="paused", price_gpu=None, price_cpu=None)
    async with world.db.transaction() as tx:
        await nodes.set_offer(tx, caller=PROVIDER, offer_id=offer["id"], setting=setting, now=world.now)


def posted(offer: OfferAsk) -> Callable[[World], Awaitable[object]]:
    return lambda world: world.report(OfferPosted(offer=offer))


@pytest.mark.parametrize(
    "change",
    [posted(ask(price_cpu=999_000)), posted(ask(cpu_milli=100)), paused],
    ids=["price", "capacity", "pause"],
)
async def test_a_plan_on_an_offer_that_just_changed_grants_nothing(
    world: World, change: Callable[[World], Awaitable[object]]
) -> None:
    await world.fund(10_000_000)
    job = await world.submit()
    async with world.db.transaction() as tx:
        interleaved: Any = Interleaved(tx, lambda: change(world))
        assert await market.clear(interleaved, new_id=world.context.new_id, now=world.now) == []
    assert (await world.job(job))["state"] == "queued"
    assert await world.one("select count(*) as leases, sum(used_cpu_milli) as used from offer, lateral "
                           "(select 1 from lease) as l") == {"leases": 0, "used": None}  # fmt: skip
    await world.cancel(job)
    assert (await world.one("select pending from account where kind = 'wallet' and posted > 0")) == {
        "pending": 0
    }


async def test_an_invite_used_twice_at_once_lets_one_in(world: World) -> None:
    async with world.db.transaction() as tx:
        await nodes.invite(
            tx, caller=PROVIDER, secret_hash=b"once", uses=1, ttl_seconds=60,
            new_id=world.context.new_id, now=START,
        )  # fmt: skip

    async def enrol(number: int) -> None:
        node = nodes.NewNode(
            id=world.context.new_id("node"),
            name=f"racer-{number}",
            sign_key=bytes([number]) * 32,
            seal_key=bytes(32),
            certificate_chain="",
            certificate_expires_at=START,
        )
        async with world.db.transaction() as tx:
            await nodes.enrol(tx, node=node, secret_hash=b"once", now=START)

    results = await asyncio.gather(*(enrol(number) for number in range(1, 4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == [
        "NoneType",
        NotAuthenticated.__name__,
        NotAuthenticated.__name__,
    ]
    row = await world.one("select count(*) as nodes from node where name like 'racer-%'")
    assert row["nodes"] == 1


async def test_one_key_enrolled_twice_at_once_is_one_node(world: World) -> None:
    async with world.db.transaction() as tx:
        await nodes.invite(
            tx, caller=PROVIDER, secret_hash=b"many", uses=5, ttl_seconds=60,
            new_id=world.context.new_id, now=START,
        )  # fmt: skip

    async def enrol(number: int) -> None:
        node = nodes.NewNode(
            id=world.context.new_id("node"),
            name=f"twin-{number}",
            sign_key=b"t" * 32,
            seal_key=bytes(32),
            certificate_chain="",
            certificate_expires_at=START,
        )
        async with world.db.transaction() as tx:
            await nodes.enrol(tx, node=node, secret_hash=b"many", now=START)

    results = await asyncio.gather(enrol(1), enrol(2), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 1, results
    assert (await world.one("select uses_left from invite where secret_hash = $1", b"many"))["uses_left"] == 4
