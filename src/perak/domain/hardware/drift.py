"""What a device loses under a long load: a straight line through what was sampled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perak.domain.hardware.inspection import Sample

WARM_UP_SHARE = 0.2
"""Of a soak; a card's boost clock falls as it warms, which is no defect."""
SAMPLES_LEAST = 5


def fitted_loss(points: Iterable[tuple[float, float | None]]) -> float | None:
    """How much a value falls from the end of the warm-up to the end, by least squares; negative: it grows.

    None with fewer than SAMPLES_LEAST values.
    """
    known = [(at, value) for at, value in points if value is not None]
    if not known:
        return None
    last = max(at for at, _ in known)
    steady = [(at, value) for at, value in known if at >= WARM_UP_SHARE * last]
    if len(steady) < SAMPLES_LEAST:
        return None
    mean_at = sum(at for at, _ in steady) / len(steady)
    mean = sum(value for _, value in steady) / len(steady)
    spread = sum((at - mean_at) ** 2 for at, _ in steady)
    if spread == 0:
        return None
    slope = sum((at - mean_at) * (value - mean) for at, value in steady) / spread
    return -slope * (steady[-1][0] - steady[0][0])


def thinned(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """At most `most` of them, evenly spread, the last one always."""
    if len(samples) <= most:
        return tuple(samples)
    step = (len(samples) - 1) / (most - 1)
    return tuple(samples[round(number * step)] for number in range(most))
