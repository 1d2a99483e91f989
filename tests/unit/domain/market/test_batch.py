"""Who bids in a batch and how much, and which parts of a plan still hold when it commits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perak.domain.job import JobSpec, Limits, Resources, Start
from perak.domain.market.batch import Part, make_batch, recheck, takes_part, waits_for_batch
from perak.domain.market.match import PendingJob
from perak.domain.offer import Device, Offer, OfferAsk

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
GIB = 2**30


def gpus(count: int) -> tuple[Device, ...]:
    return tuple(
        Device(index=at, kind="nvidia", model="Tesla V100-SXM2-32GB", uuid=f"GPU-{at}", memory_bytes=32 * GIB)
        for at in range(count)
    )


def offer(*, price: int = 300_000, free: int = 2, version: int = 1, id: str = "offer") -> Offer:
    ask = OfferAsk(
        region="DE", cpu_model="CPU", cpu_milli=32_000, memory_bytes=64 * GIB, disk_bytes=100 * GIB,
        devices=gpus(2), price_gpu=price,
    )  # fmt: skip
    return Offer(
        id=id, version=version, node=f"node-{id}", node_name=id, provider="p", state="open", ask=ask,
        free_cpu_milli=32_000, free_memory_bytes=64 * GIB, free_disk_bytes=100 * GIB, free_devices=gpus(free),
    )  # fmt: skip


def job(id: str = "job", *, held: int = 0, count: int = 1, defers: bool = True, **limits: Any) -> PendingJob:
    spec = JobSpec(
        name=id,
        run="true",
        resources=Resources(gpu_count=count, cpu_milli=1000, memory_bytes=GIB),
        limits=Limits(max_duration_seconds=7200, **limits),
        start=Start(within_seconds=3600) if defers else None,
    )
    return PendingJob(id=id, project="r", spec=spec, epoch=0, held=held, available=10**9, submitted_at=NOW)


@pytest.mark.parametrize(
    ("each", "part"),
    [
        (job(max_price=500_000), True),
        (job(max_cost=500_000), True),
        (job(), False),
        (job(max_price=500_000, defers=False), False),
        (job(max_price=500_000, count=0), False),
    ],
)
def test_deferrable_jobs_with_gpus_and_a_bid_take_part(each: PendingJob, part: bool) -> None:
    assert takes_part(each) is part
    assert waits_for_batch(each, now=NOW, seconds=10) is part
    assert not waits_for_batch(each, now=NOW + timedelta(seconds=10), seconds=10)


def test_a_job_that_must_start_now_waits_for_no_batch() -> None:
    tight = Start(within_seconds=3600, deadline_seconds=7200)  # as long as it may run
    each = job(max_price=500_000)

    assert not waits_for_batch(replace(each, spec=replace(each.spec, start=tight)), now=NOW, seconds=10)


@pytest.mark.parametrize(
    ("each", "rate"),
    [
        (job(max_price=500_000), 500_000),
        (job(max_cost=4_000_000, held=2_000_000, count=2), 500_000),  # what is left, for two GPUs and hours
        (job(max_cost=2_000_000, held=2_000_000, max_price=400_000), 400_000),
    ],
)
def test_a_bid_is_the_least_that_the_renter_named(each: PendingJob, rate: int) -> None:
    (bid,) = make_batch([each], [offer()], now=NOW).bids

    assert (bid.rate, bid.hours, bid.offers) == (rate, 2.0, (0,))


def test_nobody_bids_for_what_does_not_fit_or_asks_more() -> None:
    jobs = [job("large", count=3, max_price=500_000), job("poor", max_price=500_000)]

    assert make_batch(jobs, [offer(price=600_000)], now=NOW).bids == ()


def test_a_bid_without_the_money_for_it_is_none() -> None:
    jobs = [replace(job(id, max_price=600_000), available=1_250_000) for id in ("one", "two")]

    batch = make_batch(jobs, [offer()], now=NOW)

    # Two hours at 0.60 leave 0.05 of 1.25, and ten minutes are the least that is held.
    assert [bid.job for bid in batch.bids] == ["one"]


def part(price: int, *, version: int = 1, id: str = "job") -> Part:
    return Part(job=id, offer="offer", version=version, price=price)


def test_a_plan_holds_at_its_price_where_nothing_changed() -> None:
    ((_, _, held),) = recheck([part(450_000)], {"job": job(max_price=500_000)}, [offer()], now=NOW)

    assert (held.price, held.offer_version, held.devices) == (450_000, 1, ("GPU-0",))


@pytest.mark.parametrize(
    ("plan", "now"),
    [
        (part(450_000, version=2), offer()),  # the offer is another
        (part(299_999), offer()),  # below the ask
        (part(500_001), offer()),  # above the bid
        (part(450_000), offer(free=0)),  # taken meanwhile
        (part(450_000, id="gone"), offer()),
        (part(450_000), replace(offer(), id="another")),
    ],
)
def test_what_changed_is_not_granted(plan: Part, now: Offer) -> None:
    assert recheck([plan], {"job": job(max_price=500_000)}, [now], now=NOW) == []


def test_a_plan_sells_nothing_twice() -> None:
    jobs = {id: job(id, max_price=500_000) for id in ("one", "two", "three")}

    held = recheck([part(450_000, id=id) for id in jobs], jobs, [offer()], now=NOW)

    assert [(each.id, found.devices) for each, _, found in held] == [("one", ("GPU-0",)), ("two", ("GPU-1",))]
