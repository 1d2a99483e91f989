"""Policies of shifting: what none of them may do, and what each is for."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="the extra `sim` is not installed")

from perak.domain.carbon.pausing import PAUSE_POLICIES  # noqa: E402
from perak.domain.carbon.shifting import (  # noqa: E402
    START_POLICIES,
    Ask,
    Lengths,
    expected_carbon,
    lowest_window,
    perak,
)

HOURS = 24 * 6
ROUNDING = 1e-6


@st.composite
def intensities(draw: st.DrawFn) -> np.ndarray:
    """Hours from a seed, at few levels, so that they tie, or at many."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(0, draw(st.sampled_from([1, 2, 1000])), HOURS, endpoint=True).astype(float)


lengths = st.lists(st.floats(1 / 60, 40), min_size=1, max_size=8)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    return Ask(
        arrival=draw(st.floats(0, 48)),
        cpus=draw(st.integers(1, 64)),
        max_wait=draw(st.floats(0, 30)),
        lengths=Lengths.of(draw(lengths)),
        intensity=draw(intensities()),
        wait_price=draw(st.floats(0, 100)),
    )


def emitted(intensity: np.ndarray, start: float, end: float) -> float:
    """Summed hour by hour, apart from the code under test."""
    hours = range(int(start), math.ceil(end))
    return sum(intensity[hour] * max(0.0, min(hour + 1, end) - max(hour, start)) for hour in hours)


@pytest.mark.parametrize("name", START_POLICIES)
@given(ask=asks())
@settings(max_examples=20, deadline=None)
def test_no_start_is_before_the_arrival_or_after_the_limit(name: str, ask: Ask) -> None:
    start = START_POLICIES[name](ask)

    assert ask.arrival <= start <= ask.arrival + ask.max_wait + ROUNDING


@pytest.mark.parametrize("name", PAUSE_POLICIES)
@given(ask=asks(), pick=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_interrupted_jobs_run_as_long_as_they_are_and_wait_no_longer_than_they_may(
    name: str, ask: Ask, pick: int
) -> None:
    length = float(ask.lengths.hours[pick % ask.lengths.hours.size])

    spans = PAUSE_POLICIES[name](ask, length)

    assert sum(end - start for start, end in spans) == pytest.approx(length, abs=ROUNDING)
    assert spans[0][0] >= ask.arrival
    assert spans[-1][1] <= ask.arrival + ask.max_wait + length + ROUNDING
    assert all(start < end for start, end in spans)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


@given(ask=asks())
@settings(max_examples=30, deadline=None)
def test_the_lowest_window_is_never_worse_than_starting_at_once(ask: Ask) -> None:
    length = ask.lengths.mean
    start = lowest_window(ask)

    at_once = emitted(ask.intensity, ask.arrival, ask.arrival + length)
    assert emitted(ask.intensity, start, start + length) <= at_once + ROUNDING * max(1.0, at_once)


@given(ask=asks(), length=st.floats(1 / 60, 40))
@settings(max_examples=30, deadline=None)
def test_knowing_the_length_and_pausing_is_never_worse_than_any_start(ask: Ask, length: float) -> None:
    spans = PAUSE_POLICIES["wait-awhile"](ask, length)
    paused = sum(emitted(ask.intensity, *span) for span in spans)

    for wait in np.linspace(0, ask.max_wait, 9):
        start = ask.arrival + float(wait)
        assert paused <= emitted(ask.intensity, start, start + length) + ROUNDING * 1000


@given(known=lengths, intensity=intensities(), start=st.floats(0, 40))
@settings(max_examples=30, deadline=None)
def test_expected_carbon_is_the_mean_over_the_lengths(
    known: list[float], intensity: np.ndarray, start: float
) -> None:
    expected = sum(emitted(intensity, start, start + length) for length in known) / len(known)

    assert expected_carbon(np.array([start]), Lengths.of(known), intensity)[0] == pytest.approx(
        expected, abs=ROUNDING
    )


@given(ask=asks(), dearer=st.floats(0, 100))
@settings(max_examples=20, deadline=None)
def test_a_dearer_hour_of_waiting_never_makes_a_job_wait_longer(ask: Ask, dearer: float) -> None:
    from dataclasses import replace

    assert perak(replace(ask, wait_price=ask.wait_price + dearer)) <= perak(ask) + ROUNDING


def test_many_cpus_wait_for_what_one_does_not() -> None:
    intensity = np.array([100.0, 100.0, 60.0, 60.0, 60.0])
    ask = {"arrival": 0.0, "max_wait": 3.0, "lengths": Lengths.of([1.0]), "intensity": intensity}

    assert perak(Ask(**ask, cpus=1, wait_price=30.0)) == 0.0
    assert perak(Ask(**ask, cpus=8, wait_price=30.0)) == 2.0


def test_what_is_left_of_a_job_grows_with_what_it_has_run() -> None:
    known = Lengths.of([1.0, 1.0, 10.0])

    assert known.remaining_after(0.0) == pytest.approx(4.0)
    assert known.remaining_after(1.0) == pytest.approx(9.0)
    assert known.remaining_after(20.0) > 0
