"""A deferrable job waits for what is worth waiting for, never beyond its window."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import Grid, ZoneOutlook
from perak.domain.carbon.signal import AverageHours, hour_of
from perak.domain.job import JobSpec, Limits, Preference, Resources, Start, Work
from perak.domain.market.defer import Option, PriceProfile, decide, latest_wait, profile
from perak.domain.market.expect import expect
from perak.domain.market.match import PendingJob, instant_match
from perak.domain.offer import Device, Offer, OfferAsk
from perak.domain.units import MICROS
from perak.domain.whereabouts import OPERATOR, Whereabouts

NOW = datetime(2026, 11, 2, 18, 0, tzinfo=UTC)
HOUR = 3600
GPU = Device(index=0, kind="nvidia", model="Tesla V100-SXM2-16GB", uuid="GPU-0", memory_bytes=16 * 2**30)
MODEL = "V100 SXM2 16GB"


def offer(price: int = 200_000) -> Offer:
    ask = OfferAsk(
        region="DE",
        cpu_model="CPU",
        cpu_milli=8000,
        memory_bytes=64 * 10**9,
        disk_bytes=10**12,
        devices=(GPU,),
        price_gpu=price,
    )
    return Offer(
        id="offer",
        version=1,
        node="node",
        node_name="node",
        provider="p",
        state="open",
        ask=ask,
        free_cpu_milli=8000,
        free_memory_bytes=64 * 10**9,
        free_disk_bytes=10**12,
        free_devices=(GPU,),
        where=Whereabouts(evidence=OPERATOR),
    )


def job(**changes: Any) -> JobSpec:
    plain = JobSpec(
        name="a",
        run="b",
        resources=Resources(gpu_count=1, cpu_milli=1000),
        work=Work(device=MODEL, hours=2),
        start=Start(within_seconds=8 * HOUR),
    )
    return replace(plain, **changes)


def option(spec: JobSpec, grid: Grid | None = None) -> Option:
    at = offer()
    expected = expect(spec, at, start=NOW.timestamp(), grid=grid or Grid())
    return Option(offer=at.id, model=MODEL, region="DE", price=200_000, expected=expected, where=at.where)


def cleaner_at(hours: int) -> Grid:
    """Germany at 500 g/kWh, and at 50 from so many hours on."""
    first = hour_of(NOW.timestamp())
    grams = tuple(500.0 if hour < hours else 50.0 for hour in range(24))
    series = AverageHours(zone="DE", first_hour=first, grams_per_kwh=grams, source="test")
    return Grid({"DE": ZoneOutlook(yearly=yearly_intensity("DE"), forecast=series)})


NIGHTLY = PriceProfile(shares={MODEL: tuple(0.5 if hour < 6 else 1.1 for hour in range(24))})


def test_it_waits_for_the_hours_that_are_cheap() -> None:
    verdict = decide(job(), [option(job())], now=NOW, submitted_at=NOW, prices=NIGHTLY)

    assert verdict.wait_seconds == 6 * HOUR
    assert verdict.gain == pytest.approx(400_000 * (1 - 0.5 / 1.1))
    assert verdict.why.startswith("it waits until about Tue 00:00 UTC: a better price is usual then")
    assert verdict.saved_cost == pytest.approx(verdict.gain)
    assert verdict.saved_grams == pytest.approx(0.0), "a year's mean knows no hours"


def test_a_wait_for_a_price_may_cost_carbon_and_says_so() -> None:
    dirty_later = Grid(
        {
            "DE": ZoneOutlook(
                yearly=yearly_intensity("DE"),
                forecast=AverageHours(
                    zone="DE",
                    first_hour=hour_of(NOW.timestamp()),
                    grams_per_kwh=tuple(100.0 if hour < 3 else 600.0 for hour in range(24)),
                    source="test",
                ),
            )
        }
    )
    verdict = decide(
        job(), [option(job(), dirty_later)], now=NOW, submitted_at=NOW, prices=NIGHTLY, grid=dirty_later
    )
    assert verdict.wait_seconds == 6 * HOUR
    assert verdict.saved_grams is not None
    assert verdict.saved_grams < 0


def test_of_work_that_nobody_knows_no_saving_is_told() -> None:
    unknown = job(work=None)
    verdict = decide(unknown, [option(unknown)], now=NOW, submitted_at=NOW, prices=NIGHTLY)
    assert verdict.wait_seconds > 0
    assert (verdict.saved_grams, verdict.saved_cost) == (None, None)


def test_it_waits_for_cleaner_power_where_carbon_has_a_price() -> None:
    clean = job(preference=Preference(carbon_price_per_kg=MICROS))
    grid = cleaner_at(3)

    verdict = decide(clean, [option(clean, grid)], now=NOW, submitted_at=NOW, grid=grid)

    assert verdict.wait_seconds == 3 * HOUR
    assert "cleaner" in verdict.why
    at_once = option(clean, grid).expected.carbon_grams
    assert at_once is not None
    assert verdict.saved_grams == pytest.approx(at_once * (1 - 50 / 500)), "what starting now would emit more"
    assert verdict.saved_cost == 0
    cheapest = decide(job(), [option(job(), grid)], now=NOW, submitted_at=NOW, grid=grid)
    assert cheapest.wait_seconds == 0


def test_delay_has_its_price_too() -> None:
    hurried = job(preference=Preference(delay_cost_per_hour=MICROS))

    assert decide(hurried, [option(hurried)], now=NOW, submitted_at=NOW, prices=NIGHTLY).wait_seconds == 0


def test_it_starts_now_where_nothing_is_to_be_gained_or_its_window_is_over() -> None:
    assert decide(job(), [option(job())], now=NOW, submitted_at=NOW).wait_seconds == 0
    long_ago = NOW - timedelta(hours=8)
    assert decide(job(), [option(job())], now=NOW, submitted_at=long_ago, prices=NIGHTLY).wait_seconds == 0


def test_a_deadline_leaves_room_for_the_run() -> None:
    spec = job(start=Start(within_seconds=8 * HOUR, deadline_seconds=7 * HOUR))

    verdict = decide(spec, [option(spec)], now=NOW, submitted_at=NOW, prices=NIGHTLY)

    assert verdict.wait_seconds == 0  # By midnight there is no room left: it takes up to 2.5 hours.
    unknown = replace(spec, work=None, limits=Limits(max_duration_seconds=6 * HOUR))
    assert latest_wait(unknown, now=NOW, submitted_at=NOW, needs_seconds=None) == HOUR


@given(
    within=st.integers(0, 24 * HOUR),
    waited=st.integers(0, 30 * HOUR),
    shares=st.lists(st.floats(0.1, 3), min_size=24, max_size=24),
)
def test_it_never_waits_beyond_its_window(within: int, waited: int, shares: list[float]) -> None:
    spec = job(start=Start(within_seconds=within))
    prices = PriceProfile(shares={MODEL: tuple(shares)})

    verdict = decide(
        spec, [option(spec)], now=NOW, submitted_at=NOW - timedelta(seconds=waited), prices=prices
    )

    assert waited + verdict.wait_seconds <= max(within, waited)
    assert verdict.gain >= 0


def test_the_match_leaves_a_job_that_waits_and_takes_it_when_its_time_has_come() -> None:
    def matched(now: datetime, spec: JobSpec) -> int:
        pending = PendingJob(id="job-1", project="p", spec=spec, epoch=0, available=10**12, submitted_at=NOW)
        return len(instant_match([pending], [offer()], now=now, prices=NIGHTLY).assignments)

    assert matched(NOW, job()) == 0
    assert matched(NOW + timedelta(hours=6), job()) == 1
    assert matched(NOW, job(start=None)) == 1


def test_few_trades_make_no_habit() -> None:
    assert profile({MODEL: {3: (100.0, 5)}}).shares == {}
    found = profile({MODEL: {3: (100.0, 10), 15: (300.0, 10)}}).shares[MODEL]
    assert (found[3], found[15], found[0]) == (0.5, 1.5, 1.0)
