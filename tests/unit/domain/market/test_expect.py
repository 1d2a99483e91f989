"""What is expected of a job on an offer: lost work is paid for, carbon and deadlines are kept."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from perak.domain.hardware.standing import Standing
from perak.domain.job import JobSpec, Limits, Preference, Resources, Start, Work
from perak.domain.market.expect import Expectation, expect, unacceptable, worth
from perak.domain.market.match import PendingJob, instant_match
from perak.domain.market.utility import PRESETS
from perak.domain.offer import Device, Offer, OfferAsk
from perak.domain.units import MICROS

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


def offer(
    id: str, *, model: str = "Tesla V100-SXM2-16GB", price: int = 200_000, region: str = "DE", **more: Any
) -> Offer:
    gpu = Device(index=0, kind="nvidia", model=model, uuid=f"GPU-{id}", memory_bytes=80 * 2**30)
    ask = OfferAsk(
        region=region,
        cpu_model="Test CPU",
        cpu_milli=8000,
        memory_bytes=64 * 10**9,
        disk_bytes=10**12,
        devices=(gpu,),
        price_gpu=price,
    )
    return Offer(
        id=id,
        version=1,
        node=id,
        node_name=id,
        provider="project-1",
        state="open",
        ask=ask,
        free_cpu_milli=8000,
        free_memory_bytes=64 * 10**9,
        free_disk_bytes=10**12,
        free_devices=(gpu,),
        **more,
    )


def job(**changes: Any) -> JobSpec:
    plain = JobSpec(
        name="a",
        run="b",
        resources=Resources(gpu_count=1, cpu_milli=1000, memory_bytes=10**9),
        work=Work(device="V100 SXM2 16GB", hours=10),
    )
    return replace(plain, **changes)


def expected(spec: JobSpec, on: Offer) -> Expectation:
    return expect(spec, on, start=NOW.timestamp())


def test_a_job_of_known_work_has_a_cost_an_energy_and_a_carbon() -> None:
    found = expected(job(), offer("v"))

    assert found.seconds == pytest.approx(36_000)
    assert found.cost == 2_000_000
    assert (found.lost_cost, found.failure_risk) == (0, None)
    assert found.joules == pytest.approx((found.watts or 0) * 36_000)
    assert (found.carbon_grams or 0) > 500


def test_lost_work_is_part_of_the_cost() -> None:
    """A fault an hour in 20, of a job of ten: it is begun anew until it passes, (e^0.5 - 1) / 0.5 as long."""
    risky = offer("v", standings={"GPU-v": Standing(failures_per_hour=1 / 20)})

    found = expected(job(), risky)

    assert found.failure_risk == pytest.approx(1 - math.exp(-0.5))
    assert found.seconds == pytest.approx(36_000 * (math.exp(0.5) - 1) / 0.5)
    assert (found.cost or 0) - (found.lost_cost or 0) == 2_000_000
    assert found.lost_cost == pytest.approx(594_885, rel=1e-3)


def test_a_hopeless_place_is_still_a_number() -> None:
    found = expected(job(), offer("v", standings={"GPU-v": Standing(failures_per_hour=1000.0)}))

    assert found.failure_risk == pytest.approx(1, abs=1e-3)
    assert (found.cost or 0) > 1000 * 2_000_000


def test_where_nothing_is_known_of_the_work_nothing_is_claimed() -> None:
    found = expected(job(work=None), offer("v"))

    assert (found.seconds, found.cost, found.carbon_grams) == (None, None, None)
    assert (found.watts or 0) > 100
    assert unacceptable(job(work=None, limits=Limits(max_carbon_grams=10.0)), found) == ()
    (carbon,) = unacceptable(job(work=None, limits=Limits(max_carbon_grams=0.5)), found)
    assert str(carbon) == "carbon: needs 0.5 g CO2e or less, has 1.25 g", "until it could be stopped"
    spent = unacceptable(job(work=None, limits=Limits(max_carbon_grams=10.0)), found, emitted_grams=9.5)
    assert str(spent[0]) == "carbon: needs 0.5 g CO2e or less, has 1.25 g"


def test_limits_on_carbon_deadline_and_value_are_kept() -> None:
    wish = job(
        limits=Limits(max_carbon_grams=100.0),
        start=Start(within_seconds=0, deadline_seconds=5 * 3600),
        preference=Preference(value=MICROS, delay_cost_per_hour=MICROS // 10),
    )

    found = unacceptable(wish, expected(wish, offer("v")), waited_seconds=3600)

    assert [str(each) for each in found] == [
        f"carbon: needs 100 g CO2e or less, has {expected(wish, offer('v')).carbon_grams:.0f} g",
        "deadline: needs an end within 4h 00m, has 10h 00m",
        "value: needs cost, carbon and delay of 1.00 or less, has 3.00",
    ]
    assert worth(wish, expected(wish, offer("v"))) == pytest.approx(-2 * MICROS)


def test_moving_data_weighs_on_a_preference_and_not_on_the_carbon_of_the_run() -> None:
    """Also of a job that is longer than what is read hour by hour."""
    for hours in (10, 1000):
        wish = job(work=Work(device="V100 SXM2 16GB", hours=hours))
        plain = expected(wish, offer("v"))
        moved = expect(wish, offer("v"), start=NOW.timestamp(), brought_bytes=10**12)
        assert moved.carbon_grams == plain.carbon_grams
        assert moved.carbon is not None
        added = (moved.counted_grams or 0) - (plain.counted_grams or 0)
        assert added == pytest.approx(moved.carbon.counted_moved_grams)
        assert added > 500, "a TB at 0.0019 kWh a GB"


def test_what_earlier_runs_emitted_is_off_the_budget() -> None:
    wish = job(limits=Limits(max_carbon_grams=2_000.0))
    asked = PendingJob(id="job-1", project="p", spec=wish, epoch=0, available=10**12)
    assert instant_match([asked], [offer("v")], now=NOW).assignments
    again = replace(asked, attempts=1, emitted_grams=1_000.0)
    assert not instant_match([again], [offer("v")], now=NOW).assignments


def matched(spec: JobSpec, *offers: Offer) -> str | None:
    pending = PendingJob(id="job-1", project="p", spec=spec, epoch=0, available=10**12)
    plan = instant_match([pending], offers, now=NOW)
    return plan.assignments[0].offer if plan.assignments else None


CHEAP = offer("cheap", model="Tesla P100-SXM2-16GB", price=100_000, region="PL")
QUICK = offer("quick", model="NVIDIA H100 80GB HBM3", price=2_400_000, region="PL")
CLEAN = offer("clean", price=250_000, region="ZA")
MIDDLE = offer("middle", model="NVIDIA A100-SXM4-80GB", price=500_000, region="PL")
EVERY = (QUICK, CLEAN, MIDDLE, CHEAP)


@pytest.mark.parametrize(
    ("name", "best"), [("cheapest", "cheap"), ("fastest", "quick"), ("balanced", "middle")]
)
def test_the_instant_match_follows_the_preference(name: str, best: str) -> None:
    assert matched(job(preference=PRESETS[name]), *EVERY) == best


def test_who_wants_it_cheapest_and_knows_no_work_gets_the_least_price_an_hour() -> None:
    assert matched(job(work=None), *EVERY) == "cheap"
    assert matched(job(work=None, preference=PRESETS["fastest"]), *EVERY) == "quick"


def test_the_cheapest_bill_counts_not_the_cheapest_hour() -> None:
    slow = offer("slow", model="Tesla K80", price=90_000)

    assert matched(job(), slow, offer("v", price=100_000)) == "v"
    assert matched(job(work=None), slow, offer("v", price=100_000)) == "slow"


def test_a_clean_place_is_taken_where_carbon_is_dear() -> None:
    # Both regions are mere claims, and so count with no less than the world's average.
    dirty, average = offer("dirty", price=100_000, region="ZA"), offer("average", price=400_000, region="SE")

    assert matched(job(preference=PRESETS["greenest"]), dirty, average) == "average"


def test_a_job_that_no_place_can_end_in_time_waits_and_holds_nobody_up() -> None:
    late = job(start=Start(within_seconds=0, deadline_seconds=3600))
    jobs = [
        PendingJob(id=f"job-{n}", project="p", spec=spec, epoch=0, available=10**12)
        for n, spec in enumerate([late, job()])
    ]

    plan = instant_match(jobs, [offer("v")], now=NOW)

    assert [(each.job, each.offer) for each in plan.assignments] == [("job-1", "v")]


def test_a_job_that_asks_for_more_isolation_holds_no_other_up() -> None:
    strict, plain = job(isolation="microvm"), job()
    jobs = [
        PendingJob(id=f"job-{n}", project="p", spec=spec, epoch=0, available=10**12)
        for n, spec in enumerate([strict, plain])
    ]

    assert [each.job for each in instant_match(jobs, [offer("v")], now=NOW).assignments] == ["job-1"]


def test_a_job_that_would_outlast_the_offer_goes_elsewhere() -> None:
    ends = int(NOW.timestamp() * 1000) + 5 * 3600 * 1000
    soon = offer("soon", price=1)
    soon = replace(soon, ask=replace(soon.ask, available_until_ms=ends))

    assert matched(job(), soon, offer("long")) == "long"
    assert matched(job(work=Work(device="V100 SXM2 16GB", hours=2)), soon, offer("long")) == "soon"
