"""The published tables, on the traces that they were made with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks import eurosys24, gaia
from benchmarks.data import GAIA_JOBS, INTENSITY_2022, missing

pytest.importorskip("numpy", reason="the extra `sim` is not installed")

from perak.domain.carbon.deferral import mean_savings
from perak.domain.carbon.shifting import Floats
from perak.sim.shift import Setting, outcome, price, shift
from perak.sim.traces import JobTrace, read_intensity, read_jobs, window

REASON = missing(GAIA_JOBS, INTENSITY_2022)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

WITHIN = 0.005


@pytest.fixture(scope="module")
def jobs() -> JobTrace:
    return read_jobs(GAIA_JOBS)


@pytest.fixture(scope="module")
def grid() -> Floats:
    series = read_intensity(INTENSITY_2022, gaia.ZONE).zone(gaia.ZONE)
    return window(series, start=gaia.START, hours=gaia.HOURS)


@pytest.mark.parametrize("policy", gaia.PUBLISHED)
def test_figure_8_of_gaia(policy: str, jobs: JobTrace, grid: Floats) -> None:
    found = outcome(shift(jobs, grid, Setting(policy=policy, interruptible=policy == "ecovisor")))

    assert found.normalised_carbon == pytest.approx(gaia.PUBLISHED[policy], rel=WITHIN)
    if policy == "carbon-time":
        assert found.mean_wait_h == pytest.approx(gaia.CARBON_TIME_WAIT_HOURS, rel=WITHIN)


@pytest.mark.parametrize(("learn", "grams_per_hour"), [(False, 0.075), (True, 0.069)])
def test_ours_beats_carbon_time_at_its_mean_wait(
    learn: bool, grams_per_hour: float, jobs: JobTrace, grid: Floats
) -> None:
    setting = replace(Setting(policy="perak", wait_price=price(grams_per_hour)), learn_lengths=learn)
    found = outcome(shift(jobs, grid, setting))

    assert found.mean_wait_h <= gaia.CARBON_TIME_WAIT_HOURS
    assert found.normalised_carbon <= 0.70


def test_savings_by_deferral_as_in_eurosys24() -> None:
    trace = read_intensity(INTENSITY_2022)

    assert len(trace.zones) == 123
    for length, published in eurosys24.PUBLISHED.items():
        found = mean_savings(trace.grams_per_kwh, length).mean()
        assert found == pytest.approx(published, rel=WITHIN)
