"""A quote shows every offer, the fitting ones first, and what would be held."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import Grid, ZoneOutlook
from perak.domain.carbon.signal import AverageHours, hour_of
from perak.domain.job import JobSpec, Limits, Resources, Start, Work
from perak.domain.market.quote import Quote, quote
from perak.domain.market.utility import PRESETS
from perak.domain.offer import Device, Offer, OfferAsk
from perak.domain.whereabouts import OPERATOR, Whereabouts

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
V100 = Device(index=0, kind="nvidia", model="Tesla V100-SXM2-16GB", uuid="GPU-1", memory_bytes=16 * 2**30)


def offer(id: str, *, free_cpu_milli: int = 4000, gpus: tuple[Device, ...] = (), **ask: Any) -> Offer:
    fields: dict[str, Any] = {
        "region": "DE", "cpu_model": "CPU", "cpu_milli": 4000, "memory_bytes": 32 * 10**9,
        "disk_bytes": 10**11, "price_cpu": 20_000, "price_gpu": 180_000, "devices": gpus,
    }  # fmt: skip
    whole = OfferAsk(**(fields | ask))
    return Offer(
        id=id,
        version=1,
        node=f"node of {id}",
        node_name=id,
        provider="provider",
        state="open",
        ask=whole,
        free_cpu_milli=free_cpu_milli,
        free_memory_bytes=whole.memory_bytes,
        free_disk_bytes=whole.disk_bytes,
        free_devices=gpus,
    )


def quoted(spec: JobSpec, *offers: Offer, available: int = 10**9, currency: str = "USD") -> Quote:
    return quote(spec, offers, available=available, currency=currency, now=NOW)


def cpu_job(**limits: Any) -> JobSpec:
    return JobSpec(name="job", run="true", resources=Resources(cpu_milli=1000), limits=Limits(**limits))


def test_a_job_that_may_wait_is_told_what_that_saves_against_starting_now() -> None:
    first = hour_of(NOW.timestamp())
    hours = AverageHours(
        zone="DE",
        first_hour=first,
        grams_per_kwh=tuple(400.0 if hour < 5 else 100.0 for hour in range(48)),
        source="test",
    )
    grid = Grid({"DE": ZoneOutlook(yearly=yearly_intensity("DE"), forecast=hours)})
    spec = replace(
        cpu_job(),
        work=Work(device="cpu", hours=1),
        start=Start(within_seconds=8 * 3600),
        preference=PRESETS["greenest"],
    )
    at = replace(offer("any"), where=Whereabouts(evidence=OPERATOR))
    found = quote(spec, [at], available=10**9, currency="USD", now=NOW, grid=grid)
    now_grams = found.offers[0].expected.carbon_grams
    assert found.waiting is not None
    assert now_grams is not None
    first_clean = (first + 5) * 3600 - NOW.timestamp()
    assert 0 <= found.waiting.wait_seconds - first_clean < 900
    assert found.waiting.saved_grams == pytest.approx(now_grams * 3 / 4)
    late = NOW - timedelta(hours=8)
    waited = quote(spec, [at], available=10**9, currency="USD", now=NOW, grid=grid, submitted_at=late)
    assert waited.waiting is not None
    assert waited.waiting.wait_seconds == 0, "its window is over"
    at_once = quote(replace(spec, start=None), [at], available=10**9, currency="USD", now=NOW, grid=grid)
    assert at_once.waiting is None
    full = replace(at, free_cpu_milli=0)
    assert quote(spec, [full], available=10**9, currency="USD", now=NOW, grid=grid).waiting is None


def test_fitting_offers_come_first_and_the_cheapest_of_them_first() -> None:
    found = quoted(
        cpu_job(),
        offer("dear", price_cpu=30_000),
        offer("full", free_cpu_milli=0, price_cpu=1),
        offer("cheap"),
        offer("priceless", price_cpu=None),
    )
    assert [item.offer.id for item in found.offers] == ["cheap", "dear", "full", "priceless"]
    assert [item.fits for item in found.offers] == [True, True, False, False]
    assert found.offers[3].price is None
    assert found.offers[3].cost_max is None


def test_the_hold_is_for_the_cheapest_offer_that_fits_now_or_when_it_is_idle() -> None:
    hour = cpu_job(max_duration_seconds=3600)
    assert quoted(hour, offer("cheap"), offer("dear", price_cpu=90_000)).hold == 20_000
    assert quoted(hour, offer("full", free_cpu_milli=0, price_cpu=5_000), offer("free")).hold == 5_000
    assert quoted(hour, offer("small", cpu_milli=500, free_cpu_milli=500)).hold == 0
    assert quoted(replace(hour, limits=Limits(max_cost=7)), offer("any")).hold == 7


def test_a_hold_above_the_wallet_is_not_affordable() -> None:
    assert not quoted(cpu_job(max_cost=100), offer("any"), available=99).affordable
    assert quoted(cpu_job(max_cost=100), offer("any"), available=100).affordable


def test_a_gpu_job_counts_its_gpus() -> None:
    spec = JobSpec(name="job", run="true", resources=Resources(gpu_models=("V100",), gpu_count=1))
    (found,) = quoted(spec, offer("gpus", gpus=(V100,))).offers
    assert found.device == "1 x Tesla V100-SXM2-16GB"
    assert found.per_hour == 180_000
    assert found.watts is not None
    assert found.watts > 150
    assert found.carbon_grams_per_hour is not None
    assert found.comparison is not None
    assert "spot" in str(found.comparison)
    (elsewhere,) = quoted(spec, offer("gpus", gpus=(V100,)), currency="EUR").offers
    assert elsewhere.comparison is None


def test_what_is_not_known_is_missing_not_zero() -> None:
    odd = replace(V100, model="Unheard Of 9000")
    spec = JobSpec(name="job", run="true", resources=Resources(gpu_count=1))
    (found,) = quoted(spec, offer("odd", gpus=(odd,))).offers
    assert found.fits
    assert (found.watts, found.carbon_grams_per_hour, found.carbon_source) == (None, None, None)
    (none,) = quoted(spec, offer("none")).offers
    assert (none.fits, none.watts, none.device) == (False, None, "CPU")


def test_a_job_of_known_work_is_quoted_whole_and_ranked_by_what_its_renter_prefers() -> None:
    a100 = replace(V100, model="NVIDIA A100-SXM4-40GB", memory_bytes=40 * 2**30)
    offers = offer("slow", gpus=(V100,), price_gpu=180_000), offer("fast", gpus=(a100,), price_gpu=900_000)
    spec = JobSpec(
        name="job",
        run="true",
        resources=Resources(gpu_count=1),
        work=Work(device="V100 SXM2 16GB", hours=10),
        limits=Limits(max_cost=9_000_000),
    )

    cheap = quoted(spec, *offers)
    fast = quoted(replace(spec, preference=PRESETS["fastest"]), *offers)

    assert [each.offer.id for each in cheap.offers] == ["slow", "fast"]
    assert [each.offer.id for each in fast.offers] == ["fast", "slow"]
    assert all(each.pareto for each in cheap.offers)
    assert cheap.offers[0].expected.cost == 1_800_000
    assert cheap.offers[0].utility == 9_000_000 - 1_800_000
    assert cheap.offers[0].comparison is not None
    assert not cheap.offers[0].comparison.per_hour


def test_a_worse_offer_is_not_on_the_front() -> None:
    spec = JobSpec(name="job", run="true", resources=Resources(gpu_count=1))
    dear = offer("dear", gpus=(V100,), price_gpu=500_000)

    found = quoted(spec, dear, offer("cheap", gpus=(V100,), price_gpu=180_000))

    assert [(each.offer.id, each.pareto) for each in found.offers] == [("cheap", True), ("dear", False)]
    assert found.relaxations == ()
