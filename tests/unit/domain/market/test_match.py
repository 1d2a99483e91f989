"""The instant match: within every limit, oldest first, and always the cheapest that fits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from perak.domain.job import JobSpec, Limits, Preference, Resources
from perak.domain.market.feasible import fitting_devices, misfits, price_for
from perak.domain.market.history import Past
from perak.domain.market.match import PendingJob, Plan, instant_match
from perak.domain.offer import Device, Offer, OfferAsk
from perak.domain.outcome import hold_for

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
RICH = 10**12
MODELS = ("NVIDIA A10", "Tesla V100-SXM2-16GB", "NVIDIA A100-SXM4-40GB")


def make_offer(
    name: str,
    *,
    cpu: int = 4000,
    memory: int = 1000,
    models: tuple[str, ...] = (),
    price_cpu: int | None = 100,
    price_gpu: int | None = 100,
    accepting: bool = True,
) -> Offer:
    devices = tuple(
        Device(index=i, kind="nvidia", model=model, uuid=f"{name}-{i}", memory_bytes=16)
        for i, model in enumerate(models)
    )
    ask = OfferAsk(
        region="DE",
        cpu_model="Test CPU",
        cpu_milli=cpu,
        memory_bytes=memory,
        disk_bytes=1000,
        devices=devices,
        price_cpu=price_cpu,
        price_gpu=price_gpu,
    )
    return Offer(
        id=f"offer-{name}",
        version=7,
        node=f"node-{name}",
        node_name=name,
        provider="provider",
        state="open",
        ask=ask,
        free_cpu_milli=cpu,
        free_memory_bytes=memory,
        free_disk_bytes=1000,
        free_devices=devices,
        accepting=accepting,
    )


def make_job(
    number: int,
    *,
    cpu: int = 1000,
    memory: int = 100,
    gpus: int = 0,
    models: tuple[str, ...] = (),
    max_price: int | None = None,
    avoid: tuple[str, ...] = (),
    held: int = 0,
    available: int = RICH,
    project: str = "renter",
    max_cost: int | None = None,
) -> PendingJob:
    resources = Resources(
        cpu_milli=cpu, memory_bytes=memory, disk_bytes=10, gpu_count=gpus, gpu_models=models
    )
    limits = Limits(max_price=max_price, max_cost=max_cost, max_duration_seconds=3600)
    spec = JobSpec(name="job", run="true", resources=resources, limits=limits)
    return PendingJob(
        id=f"job-{number:03}",
        project=project,
        spec=spec,
        epoch=0,
        avoid=avoid,
        held=held,
        available=available,
    )


small_prices = st.none() | st.integers(0, 5)
offers_drawn = st.lists(
    st.builds(
        dict,
        cpu=st.integers(0, 4000),
        memory=st.integers(0, 400),
        models=st.lists(st.sampled_from(MODELS), max_size=3).map(tuple),
        price_cpu=small_prices,
        price_gpu=small_prices,
        accepting=st.booleans(),
    ),
    max_size=5,
).map(lambda drawn: [make_offer(str(i), **fields) for i, fields in enumerate(drawn)])
jobs_drawn = st.lists(
    st.builds(
        dict,
        cpu=st.integers(1, 2000),
        memory=st.integers(0, 200),
        gpus=st.integers(0, 2),
        models=st.sets(st.sampled_from(["A10", "V100", "A100"]), max_size=2).map(tuple),
        max_price=st.none() | st.integers(0, 5),
        avoid=st.sets(st.sampled_from(["node-0", "node-1"])).map(tuple),
        available=st.sampled_from([0, 1, 20, RICH]),
        held=st.sampled_from([0, 1, 20]),
        project=st.sampled_from(["a", "b"]),
    ),
    max_size=8,
).map(lambda drawn: [make_job(i, **fields) for i, fields in enumerate(drawn)])


def assigned(plan: Plan) -> dict[str, str]:
    return {a.job: a.offer for a in plan.assignments}


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_no_offer_gives_more_than_it_has_and_no_device_twice(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    plan = instant_match(jobs, offers, now=NOW)
    assert all(count == 1 for count in Counter(a.job for a in plan.assignments).values())
    used = Counter(uuid for a in plan.assignments for uuid in a.devices)
    assert all(count == 1 for count in used.values())
    for offer in offers:
        parts = [a for a in plan.assignments if a.offer == offer.id]
        assert sum(a.cpu_milli for a in parts) <= offer.free_cpu_milli
        assert sum(a.memory_bytes for a in parts) <= offer.free_memory_bytes
        assert sum(a.disk_bytes for a in parts) <= offer.free_disk_bytes
        assert {uuid for a in parts for uuid in a.devices} <= {d.uuid for d in offer.free_devices}


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_each_job_gets_what_it_asked_for_at_the_posted_price_within_its_limit(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    by_job, by_offer = {j.id: j for j in jobs}, {o.id: o for o in offers}
    for part in instant_match(jobs, offers, now=NOW).assignments:
        job, offer = by_job[part.job], by_offer[part.offer]
        wanted, limit = job.spec.resources, job.spec.limits.max_price
        assert misfits(job.spec, offer, now=NOW) == ()
        assert part.price == price_for(job.spec, offer)
        assert limit is None or part.price <= limit
        assert len(part.devices) == wanted.gpu_count
        assert (part.cpu_milli, part.memory_bytes) == (wanted.cpu_milli, wanted.memory_bytes)
        assert (part.offer_version, part.node, part.provider) == (offer.version, offer.node, offer.provider)


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_an_offer_without_misfits_and_only_such_a_one_takes_a_job_that_pays(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    for job in jobs:
        paying = replace(job, available=RICH)
        for offer in offers:
            plan = instant_match([paying], [offer], now=NOW)
            assert bool(plan.assignments) == (not misfits(job.spec, offer, now=NOW))


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_a_job_alone_gets_the_cheapest_of_all_that_fit(jobs: list[PendingJob], offers: list[Offer]) -> None:
    for job in (replace(j, available=RICH) for j in jobs):
        prices = [
            (o.node in job.avoid, price)
            for o in offers
            if not misfits(job.spec, o, now=NOW) and (price := price_for(job.spec, o)) is not None
        ]
        parts = instant_match([job], offers, now=NOW).assignments
        got = [(part.node in job.avoid, part.price) for part in parts]
        assert got == ([min(prices)] if prices else [])


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_the_plan_is_that_of_trying_every_job_on_every_offer(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    expected: dict[str, str] = {}
    left = {offer.id: offer for offer in offers}
    for job in (replace(j, available=RICH) for j in jobs):
        wanted = job.spec.resources
        options = [
            (o.node in job.avoid, price, o.free_cpu_milli, o.id)
            for o in left.values()
            if not misfits(job.spec, o, now=NOW) and (price := price_for(job.spec, o)) is not None
        ]
        if not options:
            continue
        expected[job.id] = id = min(options)[-1]
        taken = fitting_devices(job.spec, left[id].free_devices)[: wanted.gpu_count]
        left[id] = replace(
            left[id],
            free_cpu_milli=left[id].free_cpu_milli - wanted.cpu_milli,
            free_memory_bytes=left[id].free_memory_bytes - wanted.memory_bytes,
            free_disk_bytes=left[id].free_disk_bytes - wanted.disk_bytes,
            free_devices=tuple(d for d in left[id].free_devices if d not in taken),
        )
    assert assigned(instant_match([replace(j, available=RICH) for j in jobs], offers, now=NOW)) == expected


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_who_comes_later_takes_nothing_from_who_came_before(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    whole = instant_match(jobs, offers, now=NOW).assignments
    for count in range(len(jobs)):
        first = instant_match(jobs[:count], offers, now=NOW).assignments
        assert whole[: len(first)] == first


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_together_the_jobs_of_a_project_need_no_more_than_its_wallet_has(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    jobs = [replace(j, available=20) for j in jobs]
    by_id, left = {j.id: j for j in jobs}, {"a": 20, "b": 20}
    for part in instant_match(jobs, offers, now=NOW).assignments:
        job = by_id[part.job]
        hold = hold_for(
            price=part.price,
            devices_milli=part.devices_milli,
            seconds=3600,
            max_cost=None,
            available=job.held + left[job.project],
        )
        left[job.project] -= max(0, hold.amount - job.held)
    assert min(left.values()) >= 0


@given(jobs=jobs_drawn, offers=offers_drawn)
def test_the_order_in_which_offers_are_listed_changes_nothing(
    jobs: list[PendingJob], offers: list[Offer]
) -> None:
    assert instant_match(jobs, offers, now=NOW) == instant_match(jobs, offers[::-1], now=NOW)


def test_the_oldest_gets_the_last_place() -> None:
    plan = instant_match([make_job(1), make_job(2)], [make_offer("small", cpu=1500)], now=NOW)
    assert assigned(plan) == {"job-001": "offer-small"}


def test_a_younger_job_that_fits_does_not_wait_for_an_older_one_that_does_not() -> None:
    plan = instant_match([make_job(1, cpu=9000), make_job(2)], [make_offer("one")], now=NOW)
    assert assigned(plan) == {"job-002": "offer-one"}


def test_of_equal_prices_the_fullest_offer_is_filled_first() -> None:
    offers = [make_offer("empty", cpu=4000), make_offer("fuller", cpu=2000)]
    plan = instant_match([make_job(n) for n in range(3)], offers, now=NOW)
    assert list(assigned(plan).values()) == ["offer-fuller", "offer-fuller", "offer-empty"]


def test_a_node_that_failed_the_job_is_the_last_choice_and_still_one() -> None:
    job = make_job(1, avoid=("node-cheap",))
    cheap, dear = make_offer("cheap", price_cpu=1), make_offer("dear", price_cpu=9)
    assert assigned(instant_match([job], [cheap, dear], now=NOW)) == {"job-001": "offer-dear"}
    assert assigned(instant_match([job], [cheap], now=NOW)) == {"job-001": "offer-cheap"}


def test_a_job_that_can_not_pay_keeps_nobody_from_the_offer() -> None:
    poor, rich = make_job(1, available=0, project="poor"), make_job(2)
    plan = instant_match([poor, rich], [make_offer("one", cpu=1000)], now=NOW)
    assert assigned(plan) == {"job-002": "offer-one"}


def test_what_is_held_already_counts() -> None:
    assert assigned(instant_match([make_job(1, held=100, available=0)], [make_offer("one")], now=NOW))


def test_ten_minutes_ahead_are_enough() -> None:
    offers = [make_offer("one", price_cpu=600)]
    assert not instant_match([make_job(1, available=99)], offers, now=NOW).assignments
    assert instant_match([make_job(1, available=100)], offers, now=NOW).assignments


def test_a_job_with_a_max_cost_needs_nothing_beyond_what_is_left_of_it() -> None:
    retried = make_job(1, max_cost=1000, held=400, available=0)
    assert instant_match([retried], [make_offer("one", price_cpu=10_000)], now=NOW).assignments


def test_a_job_that_bids_too_little_keeps_nobody_like_it_from_the_offer() -> None:
    """What each is worth is all that differs, and what its workload did before says what it would cost."""
    past = Past(
        device="1000m x Test CPU",
        runs=9,
        renters=1,
        own=True,
        low_seconds=3600,
        median_seconds=3600,
        high_seconds=3600,
    )
    low, high = (
        replace(job, past=(past,), spec=replace(job.spec, preference=Preference(value=value)))
        for job, value in ((make_job(1), 1), (make_job(2), 10**9))
    )
    plan = instant_match([low, high], [make_offer("one", price_cpu=1000)], now=NOW)
    assert assigned(plan) == {"job-002": "offer-one"}
