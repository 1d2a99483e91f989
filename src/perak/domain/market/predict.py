"""How long a job takes on a device: from its own past, from its declared work, or from its past elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perak.domain.hardware.speeds import Ratio, Speeds, sheet_speeds, speeds_of, time_ratio
from perak.domain.hardware.standing import UNGRADED, Standing
from perak.domain.job import JobSpec
from perak.domain.market.history import Past, device_key
from perak.domain.units import SECONDS_PER_HOUR

HISTORY, DECLARED, ROOFLINE = "history", "declared work", "roofline"
SOURCES = (HISTORY, DECLARED, ROOFLINE)
"""Best first."""

FEW_RUNS = 5
FEW_SPREAD = 1.25
"""With fewer runs than FEW_RUNS their quantiles say little: the interval is at least this factor each way."""
DECLARED_SPREAD = 1.25
"""How far a renter's own figure is trusted, on the very device that it is declared on."""
CPU_SPREAD = 2.0
"""Between processors: how fast a core is isn't known."""
REFERENCE_GPU = "V100 SXM2 16GB"
"""What GPUs are compared with where nothing is known of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A kind of device that a job would get: what predictions depend on. `gpu` None: processor cores."""

    gpu: str | None
    cpu_model: str
    memory_bytes: int | None = None
    standing: Standing = UNGRADED

    def key(self, spec: JobSpec) -> str:
        return device_key(
            model=self.gpu or self.cpu_model,
            gpu_count=spec.resources.gpu_count,
            cpu_milli=spec.resources.cpu_milli,
            memory_bytes=self.memory_bytes,
        )

    def speeds(self) -> Speeds | None:
        if self.gpu is None:
            return None
        return speeds_of(self.gpu, memory_bytes=self.memory_bytes, standing=self.standing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds of a whole run without a fault, with their interval; `source` is one of SOURCES.

    `joules`: what earlier runs on this very kind of device used; None: not known, a model of power stands in.
    """

    seconds: float
    low_seconds: float
    high_seconds: float
    source: str
    detail: str
    runs: int = 0
    joules: float | None = None

    @property
    def hours(self) -> float:
        return self.seconds / SECONDS_PER_HOUR


def predict(spec: JobSpec, place: Place, *, past: Sequence[Past] = ()) -> Prediction | None:
    """The job's time at `place` by the best source there is; None: nothing is known of its work."""
    key = place.key(spec)
    here = [each for each in past if each.device == key]
    if here:
        return _from_past(_best(here))
    return _from_declared(spec, place) or _from_elsewhere(spec, place, past)


def relative_time(place: Place) -> float:
    """How much longer than on REFERENCE_GPU, for ranking where nothing is known of the work; 1 of a CPU."""
    reference, target = sheet_speeds(REFERENCE_GPU), place.speeds()
    if reference is None or target is None:
        return 1.0
    return time_ratio(reference=reference, target=target).expected


def _best(past: Sequence[Past]) -> Past:
    """The renter's own runs before everybody's."""
    return max(past, key=lambda each: (each.own, each.runs))


def _from_past(past: Past) -> Prediction:
    spread = FEW_SPREAD if past.runs < FEW_RUNS else 1.0
    whose = "of yours" if past.own else f"of {past.renters} renters"
    return Prediction(
        seconds=past.median_seconds,
        low_seconds=min(past.low_seconds, past.median_seconds / spread),
        high_seconds=max(past.high_seconds, past.median_seconds * spread),
        source=HISTORY,
        detail=f"{past.runs} {'run' if past.runs == 1 else 'runs'} {whose} on {_device_text(past.device)}",
        runs=past.runs,
        joules=past.median_joules,
    )


def _device_text(key: str) -> str:
    """A `device_key` as a person reads it: ``2000m x Xeon`` is 2 cores of a Xeon."""
    milli, sign, model = key.partition("m x ")
    if not sign or not milli.isdecimal():
        return key
    return f"{int(milli) / 1000:g} {'core' if milli == '1000' else 'cores'} of {model}"


def _from_declared(spec: JobSpec, place: Place) -> Prediction | None:
    if spec.work is None:
        return None
    seconds = spec.work.hours * SECONDS_PER_HOUR
    if place.gpu is None:
        if spec.work.device != "cpu":
            return None
        detail = "as declared for cores; how fast they are isn't known"
        return _scaled(seconds, Ratio(expected=1, low=1, high=1), CPU_SPREAD, source=DECLARED, detail=detail)
    reference, target = sheet_speeds(spec.work.device), place.speeds()
    if reference is None or target is None:
        return None
    ratio = time_ratio(reference=reference, target=target)
    by = "its measured rates" if target.measured else "data sheets"
    detail = f"{spec.work.hours:g} h on {spec.work.device} as declared, x {ratio.expected:.2f} by {by}"
    return _scaled(seconds, ratio, DECLARED_SPREAD, source=DECLARED, detail=detail)


def _from_elsewhere(spec: JobSpec, place: Place, past: Sequence[Past]) -> Prediction | None:
    """Its past on other devices, as many of them, scaled by the roofline."""
    prefix = f"{spec.resources.gpu_count} x " if place.gpu else f"{spec.resources.cpu_milli}m x "
    others = [each for each in past if each.device.startswith(prefix)]
    target = place.speeds()
    found = []
    for each in others:
        if place.gpu is None:
            found.append((each, Ratio(expected=1, low=1, high=1), CPU_SPREAD))
            continue
        reference = sheet_speeds(each.device.removeprefix(prefix))
        if reference is not None and target is not None:
            found.append((each, time_ratio(reference=reference, target=target), 1.0))
    if not found:
        return None
    best, ratio, spread = max(found, key=lambda each: (each[0].own, -abs(1 - each[1].expected), each[0].runs))
    known = _from_past(best)
    by = "its measured rates" if target is not None and target.measured else "data sheets"
    how = f"x {ratio.expected:.2f} by {by}" if place.gpu else "on another processor"
    scaled = _scaled(known.seconds, ratio, spread, source=ROOFLINE, detail=f"{known.detail}, {how}")
    return Prediction(
        seconds=scaled.seconds,
        low_seconds=known.low_seconds / known.seconds * scaled.low_seconds,
        high_seconds=known.high_seconds / known.seconds * scaled.high_seconds,
        source=ROOFLINE,
        detail=scaled.detail,
        runs=known.runs,
    )


def _scaled(seconds: float, ratio: Ratio, spread: float, *, source: str, detail: str) -> Prediction:
    return Prediction(
        seconds=seconds * ratio.expected,
        low_seconds=seconds * ratio.low / spread,
        high_seconds=seconds * ratio.high * spread,
        source=source,
        detail=detail,
    )
