"""What a job could give way in, so that offers fit; and what no other offer beats."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from perak.domain.hardware.standing import Standing
from perak.domain.job import Image, JobSpec, Limits, Preference, Resources, Work
from perak.domain.market.expect import Expectation, expect
from perak.domain.market.pareto import front
from perak.domain.market.relax import relaxations
from perak.domain.offer import Device, Offer, OfferAsk

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
GB = 10**9


def offer(
    id: str = "offer", *, model: str = "Tesla V100-SXM2-16GB", gib: int = 16, price_gpu: int = 180_000
) -> Offer:
    gpu = Device(index=0, kind="nvidia", model=model, uuid="GPU-0", memory_bytes=gib * 2**30)
    ask = OfferAsk(
        region="DE",
        cpu_model="Test CPU",
        cpu_milli=8000,
        memory_bytes=64 * GB,
        disk_bytes=100 * GB,
        devices=(gpu,),
        price_gpu=price_gpu,
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
        free_memory_bytes=64 * GB,
        free_disk_bytes=100 * GB,
        free_devices=(gpu,),
    )


def market() -> list[Offer]:
    """Fourteen with 16 GiB from 0.18, one with 24 GiB of another model."""
    v100 = [offer(f"v-{n}", price_gpu=180_000 + n) for n in range(14)]
    other = offer("a", model="NVIDIA A10", gib=24, price_gpu=250_000)
    return [*v100, other]


def gpu_job(**changes: object) -> JobSpec:
    wanted = Resources(gpu_models=("V100",), gpu_count=1, gpu_memory_bytes=32 * GB, cpu_milli=1000)
    return replace(JobSpec(name="a", run="b", resources=wanted), **changes)  # type: ignore[arg-type]


def test_the_smallest_relaxation_is_named_with_how_many_offers_and_from_what_price() -> None:
    found = relaxations(gpu_job(), market(), now=NOW)

    assert str(found[0]) == "gpu_memory 32.0 GB lowered to 17.2 GB: 14 offers from 0.18/h"


def test_two_requirements_may_stand_in_the_way_together() -> None:
    (found,) = relaxations(gpu_job(regions=("FR",)), market()[:1], now=NOW)

    assert set(found.changes) == {"gpu_memory", "region"}
    assert found.offers == 1


def test_the_nearest_price_is_named_not_the_dearest() -> None:
    job = gpu_job(resources=Resources(gpu_count=1, cpu_milli=1000), limits=Limits(max_price=100_000))

    (found,) = relaxations(job, market(), now=NOW)

    assert found.changes == {"price": "max_price 0.10/h raised to 0.18/h"}
    assert found.offers == 1


def test_what_a_provider_does_not_admit_can_not_be_given_way_in() -> None:
    assert relaxations(gpu_job(image=Image(name="debian:12")), market(), now=NOW) == ()


def test_a_busy_offer_needs_no_relaxation() -> None:
    busy = replace(offer(), free_devices=())

    assert relaxations(gpu_job(resources=Resources(gpu_count=1)), [busy], now=NOW) == ()


def expecting(job: JobSpec, offer: Offer) -> Expectation:
    return expect(job, offer, start=NOW.timestamp())


def test_limits_on_what_is_expected_are_relaxed_no_further_than_they_must_be() -> None:
    job = gpu_job(
        resources=Resources(gpu_count=1, cpu_milli=1000),
        work=Work(device="V100 SXM2 16GB", hours=10),
        limits=Limits(max_carbon_grams=5.0),
    )
    assert relaxations(job, market()[:1], now=NOW) == ()

    (carbon,) = relaxations(job, market()[:1], now=NOW, expecting=expecting)
    (value,) = relaxations(
        replace(job, limits=Limits(), preference=Preference(value=100_000)),
        market()[:1],
        now=NOW,
        expecting=expecting,
    )

    grams = expecting(job, offer()).carbon_grams
    assert grams is not None
    raised = float(carbon.changes["carbon"].removesuffix(" g").rpartition(" ")[2])
    assert grams <= raised <= grams + 0.1
    assert str(value) == "value 0.10 raised to 1.80: 1 offer from 0.18/h"


def test_a_grade_is_lowered_to_what_there_is_and_a_duration_to_what_is_taken() -> None:
    graded = replace(offer(), standings={"GPU-0": Standing(grade="B")})
    short = replace(offer(), ask=replace(offer().ask, min_duration_seconds=7200))
    job = gpu_job(resources=Resources(gpu_count=1, cpu_milli=1000), min_grade="A")

    assert relaxations(job, [graded], now=NOW)[0].changes == {"grade": "min_grade A lowered to B"}
    hour = replace(job, min_grade=None, limits=Limits(max_duration_seconds=3600))
    assert relaxations(hour, [short], now=NOW)[0].changes == {
        "min_duration": "max_duration 1h 00m raised to 2h 00m"
    }


points = st.lists(st.tuples(*[st.none() | st.integers(0, 5).map(float)] * 3), min_size=1, max_size=30)


@given(points)
def test_a_front_holds_what_nothing_beats_and_nothing_else(found: list[tuple[float | None, ...]]) -> None:
    known = [tuple(float("inf") if each is None else each for each in point) for point in found]
    beaten = {
        i
        for i, one in enumerate(known)
        if any(other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in known)
    }

    assert set(front(found)) == set(range(len(found))) - beaten
