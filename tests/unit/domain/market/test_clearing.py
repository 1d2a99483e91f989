"""Clearing: whatever the market, the plan is sound by the words of other code, and near the best there is."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from benchmarks.market_instances import Shape, standard, thin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perak.domain.market import auction
from perak.domain.market.bound import upper_bound
from perak.domain.market.clearing import Jobs, Offers, Plan, welfare
from perak.sim.clearing_check import Audit, audit

Rows = list[dict[str, Any]]

pytestmark = pytest.mark.timeout(900)
"""The first of them compiles what they all run, which takes minutes on a busy machine."""


def arrays(offers: Rows, jobs: Rows) -> tuple[Jobs, Offers]:
    """The rows as the clearing takes them."""
    classes = sorted({(o["model"], o["region"], o["grade"]) for o in offers})
    regions = sorted({o["region"] for o in offers})
    first = [next(o for o in offers if (o["model"], o["region"], o["grade"]) == c) for c in classes]

    def of(rows: Rows, name: str) -> Any:
        return np.array([row[name] for row in rows], float)

    return (
        Jobs(
            devices=of(jobs, "devices").astype(np.int64),
            per_node=of(jobs, "devices_per_node").astype(np.int64),
            memory_gb=of(jobs, "memory_gb"),
            work=of(jobs, "work"),
            value=of(jobs, "value"),
            deadline_h=of(jobs, "deadline_h"),
            delay_cost_per_h=of(jobs, "delay_cost_per_h"),
            carbon_price_per_kg=of(jobs, "carbon_price_per_kg"),
            admits=np.array(
                [[not j["regions"] or r in j["regions"].split(";") for r in regions] for j in jobs], np.bool_
            ).reshape(len(jobs), len(regions)),
        ),
        Offers(
            kind=np.array([classes.index((o["model"], o["region"], o["grade"])) for o in offers], np.int64),
            devices=of(offers, "devices").astype(np.int64),
            price=of(offers, "price_per_device_hour"),
            performance=of(first, "performance"),
            memory_gb=of(first, "memory_gb"),
            power_w=of(first, "power_w"),
            carbon_g_per_kwh=of(first, "carbon_g_per_kwh"),
            region=np.array([regions.index(c[1]) for c in classes], np.int64),
        ),
    )


def checked(plan: Plan, offers: Rows, jobs: Rows, *, fee: float = 0.0) -> Audit:
    rows = [
        {
            "job_id": jobs[j]["job_id"],
            "offer_id": offers[o]["offer_id"],
            "devices": int(n),
            "pays_per_device_hour": float(pays),
        }
        for j, o, n, pays in zip(plan.job, plan.offer, plan.devices, plan.pays, strict=True)
    ]
    return audit(offers, jobs, rows, fee=fee)


def rows_of(table: dict[str, Any]) -> Rows:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


REGIONS = ("DE", "FR", "US")
FACTS = {"P100": (0.6, 16.0, 250.0), "V100": (1.0, 32.0, 300.0), "A100": (2.4, 40.0, 400.0)}
PRICES = st.sampled_from([0.05, 0.1, 0.1, 0.2, 0.5, 1.0])


@st.composite
def markets(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Small markets with ties, gangs of odd sizes, jobs that fit nowhere, and offers that nobody wants."""
    offers: Rows = []
    for number in range(draw(st.integers(1, 8))):
        model, region = draw(st.sampled_from(sorted(FACTS))), draw(st.sampled_from(REGIONS))
        performance, memory, watts = FACTS[model]
        offers.append(
            {
                "offer_id": f"o{number}",
                "model": model,
                "region": region,
                "grade": "B",
                "devices": draw(st.integers(1, 9)),
                "price_per_device_hour": draw(PRICES),
                "performance": performance,
                "memory_gb": memory,
                "power_w": watts,
                "carbon_g_per_kwh": {"DE": 380.0, "FR": 56.0, "US": 400.0}[region],
            }
        )
    jobs: Rows = []
    for number in range(draw(st.integers(0, 10))):
        group = draw(st.integers(1, 4))
        jobs.append(
            {
                "job_id": f"j{number}",
                "devices": group * draw(st.integers(1, 4)) + draw(st.sampled_from([0, 0, 0, 1])),
                "devices_per_node": group,
                "memory_gb": draw(st.sampled_from([0.0, 16.0, 32.0, 80.0])),
                "work": draw(st.floats(0.01, 100.0)),
                "value": draw(st.floats(0.0, 100.0)),
                "deadline_h": draw(st.sampled_from([0.5, 5.0, float("inf")])),
                "delay_cost_per_h": draw(st.sampled_from([0.0, 0.1, 3.0])),
                "carbon_price_per_kg": draw(st.sampled_from([0.0, 0.1])),
                "regions": draw(st.sampled_from(["", "DE", "DE;FR", "SE"])),
            }
        )
    return offers, jobs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(markets())
def test_no_market_gets_a_plan_that_the_check_refuses(market: tuple[Rows, Rows]) -> None:
    offers, jobs = market
    both = arrays(offers, jobs)
    for plan in (auction.instant(*both).plan, auction.auction(*both).plan):
        found = checked(plan, offers, jobs, fee=0.05)
        assert found.violations == ()
        assert found.welfare == pytest.approx(welfare(plan, *both), rel=1e-9, abs=1e-9)
        assert found.renters_pay == pytest.approx(found.providers_get + found.fee)
        assert found.welfare <= upper_bound(*both, plan) + 1e-6


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(markets())
def test_the_bound_is_above_every_plan_there_is(market: tuple[Rows, Rows]) -> None:
    """Of jobs that each take one offer alone, every combination is tried."""
    offers, jobs = market
    jobs = jobs[:4]
    both = arrays(offers, jobs)
    best = 0.0
    for choice in product(range(-1, len(offers)), repeat=len(jobs)):
        picked = [(j, o) for j, o in enumerate(choice) if o >= 0]
        plan = Plan(
            job=np.array([j for j, _ in picked], np.int64),
            offer=np.array([o for _, o in picked], np.int64),
            devices=np.array([jobs[j]["devices"] for j, _ in picked], np.int64),
            pays=np.array([offers[o]["price_per_device_hour"] for _, o in picked]),
        )
        if picked and not checked(plan, offers, jobs).violations:
            best = max(best, welfare(plan, *both))
        if len(offers) ** len(jobs) > 1000:
            break
    assert best <= upper_bound(*both, auction.auction(*both).plan) + 1e-6


@pytest.mark.parametrize("make", [lambda: standard(Shape(offers=300, jobs=300), 7), lambda: thin(30, 7)])
def test_the_auction_is_sound_and_better_than_one_by_one(make: Any) -> None:
    offers, jobs = (rows_of(table) for table in make())
    both = arrays(offers, jobs)
    once, together = auction.instant(*both).plan, auction.auction(*both).plan
    assert checked(once, offers, jobs).violations == ()
    assert checked(together, offers, jobs).violations == ()
    assert welfare(together, *both) > welfare(once, *both)
    assert welfare(together, *both) <= upper_bound(*both, together, rounds_max=2)


def test_the_same_market_has_the_same_plan() -> None:
    both = arrays(*(rows_of(table) for table in standard(Shape(offers=60, jobs=60), 3)))
    one, other = auction.auction(*both).plan, auction.auction(*both).plan
    assert [one.job.tolist(), one.offer.tolist(), one.pays.tolist()] == [
        other.job.tolist(),
        other.offer.tolist(),
        other.pays.tolist(),
    ]


def simple(value: float, **more: Any) -> dict[str, Any]:
    job: dict[str, Any] = dict.fromkeys(("memory_gb", "delay_cost_per_h", "carbon_price_per_kg"), 0.0)
    job |= {"job_id": f"j{value}", "devices": 1, "devices_per_node": 1, "work": 1.0, "value": value}
    return job | {"deadline_h": float("inf"), "regions": ""} | more


def one_offer(devices: int, ask: float, name: str = "o") -> dict[str, Any]:
    offer = {"offer_id": name, "model": "V100", "region": "DE", "grade": "B", "devices": devices}
    facts = {"performance": 1.0, "memory_gb": 32.0, "power_w": 300.0, "carbon_g_per_kwh": 380.0}
    return offer | facts | {"price_per_device_hour": ask}


def test_a_gang_is_displaced_whole_by_those_who_bid_more() -> None:
    offers = [one_offer(4, 0.1)]
    jobs = [simple(2.0, devices=4, devices_per_node=4, work=4.0), *(simple(1.0 + i / 10) for i in range(4))]
    plan = auction.auction(*arrays(offers, jobs)).plan
    assert sorted(plan.job.tolist()) == [1, 2, 3, 4]
    # The gang would have paid (2.0 - 0.4) / 4 for a device beyond the ask: that is the premium.
    assert plan.pays.tolist() == pytest.approx([0.5] * 4)


def test_nobody_pays_beyond_the_bid_where_the_premium_would() -> None:
    offers = [one_offer(2, 0.1)]
    jobs = [
        simple(0.3),
        simple(5.0),
        simple(9.0, devices=2, devices_per_node=2, memory_gb=99.0),
        simple(0.25),
    ]
    plan = auction.auction(*arrays(offers, jobs)).plan
    assert dict(zip(plan.job.tolist(), plan.pays.tolist(), strict=True)) == pytest.approx({0: 0.25, 1: 0.25})


def test_long_jobs_get_the_cheap_devices() -> None:
    offers = [one_offer(1, 0.2, "dear"), one_offer(1, 0.1, "cheap")]
    jobs = [simple(5.0, work=1.0), simple(9.0, work=10.0)]
    plan = auction.auction(*arrays(offers, jobs)).plan
    assert dict(zip(plan.job.tolist(), plan.offer.tolist(), strict=True)) == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"devices": 3}, "oversold"),
        ({"devices": 1}, "not whole"),
        ({"pays_per_device_hour": 0.05}, "below the ask"),
        ({"pays_per_device_hour": 9.0}, "above its bid"),
        ({"offer_id": "nobody's"}, "no such job or offer"),
    ],
)
def test_the_check_sees_what_is_wrong(change: dict[str, Any], says: str) -> None:
    offers, jobs = [one_offer(2, 0.1)], [simple(1.0, devices=2, devices_per_node=2, work=2.0)]
    row = {"job_id": "j1.0", "offer_id": "o", "devices": 2, "pays_per_device_hour": 0.1}
    assert audit(offers, jobs, [row]).violations == ()
    found = audit(offers, jobs, [row | change])
    assert any(says in each for each in found.violations)
