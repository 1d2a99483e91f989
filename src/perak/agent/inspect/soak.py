"""A long load: multiply-adds and copies in turn, with temperature, clocks, power and throttling sampled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from perak.agent.inspect.opencl import Session, median
from perak.agent.inspect.throughput import fma_rates
from perak.domain.hardware import inspection as i
from perak.domain.hardware.drift import fitted_loss, thinned
from perak.domain.hardware.inspection import SAMPLES_KEPT_MAX, Check, Sample

if TYPE_CHECKING:
    from perak.agent.inspect.amd import Card as AmdCard
    from perak.agent.inspect.nvml import Card as NvidiaCard

LOAD_SECONDS = 0.1
"""Of one burst of multiply-adds; six of them are one sample."""
SLOWDOWNS = frozenset({"hardware slowdown", "hardware thermal", "power brake"})
END_SHARE = 0.1
"""The last part of a soak, whose median temperature is told."""


def soak(
    session: Session, card: NvidiaCard | AmdCard | None, *, seconds: float
) -> tuple[tuple[Sample, ...], list[Check]]:
    """Load the device for so long; what was sampled, and the checks on it."""
    samples: list[Sample] = []
    copied = session.buffer(size := _copy_bytes(session))
    other = session.buffer(size)
    session.zero(copied, size)
    began = time.perf_counter()
    while (at := time.perf_counter() - began) < seconds or not samples:
        tflops = median(fma_rates(session, "fp32", run_seconds=LOAD_SECONDS))
        session.over("copy", copied, size, other)
        samples.append(
            Sample(at_seconds=at, tflops=tflops) if card is None else card.sample(at, tflops=tflops)
        )
    session.finish()
    lasted = time.perf_counter() - began
    kept = thinned(samples, SAMPLES_KEPT_MAX)
    return kept, _checks(samples, card, lasted=lasted, wanted=seconds)


def _copy_bytes(session: Session) -> int:
    most = min(256 * 2**20, session.shown.buffer_bytes_max // 4)
    return most // session.grain_bytes * session.grain_bytes


def _checks(
    samples: list[Sample], card: NvidiaCard | AmdCard | None, *, lasted: float, wanted: float
) -> list[Check]:
    last = [each.celsius for each in samples if each.at_seconds >= (1 - END_SHARE) * samples[-1].at_seconds]
    celsius = [each for each in last if each is not None]
    watts = [each.watts for each in samples if each.watts is not None]
    limit = card.power_limit_watts if card is not None else None
    slowed = sum(1 for each in samples if SLOWDOWNS & set(each.throttle)) / len(samples)
    lost = fitted_loss((each.at_seconds, each.tflops) for each in samples)
    rates = [each.tflops for each in samples if each.tflops]
    return [
        Check(
            name=i.SOAK_SECONDS,
            status="passed",
            value=lasted,
            unit="s",
            threshold=wanted,
            source="the inspection's own clock",
        ),
        _figure(i.SOAK_TEMPERATURE, median(celsius) if celsius else None, "no sensor tells it"),
        _figure(
            i.SOAK_CLOCK_DRIFT,
            fitted_loss((each.at_seconds, each.clock_mhz) for each in samples),
            "its clock can't be read, or too few samples were taken",
        ),
        _figure(
            i.SOAK_POWER,
            median(watts) / limit if watts and limit else None,
            "its power or the limit of it can't be read",
        ),
        _figure(
            i.SOAK_THROUGHPUT_DRIFT,
            None if lost is None or not rates else lost / median(rates),
            "too few samples were taken",
        ),
        _figure(
            i.SOAK_SLOWDOWN, slowed if card is not None else None, "no driver tells of slowdowns", most=0
        ),
        _figure(
            i.SOAK_ERRORS,
            card.new_uncorrected() if card is not None else None,
            "no driver counts errors of its memory",
            most=0,
        ),
    ]


def _figure(name: str, value: float | None, why_not: str, *, most: float | None = None) -> Check:
    unit = i.BY_NAME[name].unit
    if value is None:
        return Check(name=name, status="not_run", reason=why_not, unit=unit)
    is_bad = most is not None and value > most
    return Check(
        name=name,
        status="failed" if is_bad else "passed",
        value=float(value),
        unit=unit,
        threshold=most,
        source="NVML, OpenCL",
    )
