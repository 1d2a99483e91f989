"""The share of making the hardware that a run carries, as a range: M of SCI v1.1.

M = TE x TS x RS: the carbon of making a thing, the run's time over its expected life, the share of it that
was reserved. The low end takes the lowest published figure over the long life, the high end the highest over
the short one. Where one source alone knows a card, the constants that two calculators take for any card widen
its range: a single figure would look surer than it is. Grams CO2e; kg for whole things.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from perak.domain.facts.embodied import (
    ANY_GPU_KG,
    GPUS_KG,
    LIFE_YEARS_LONG,
    LIFE_YEARS_SHORT,
    SERVER_KG,
)
from perak.domain.footprint import SERVER, Embodied, EmbodiedPart, embodied_grams
from perak.domain.hardware.specs import GpuSpec, find_gpu

CARDS_MAX = 1024
"""Names whose figures are remembered: a market has a hundred, a stranger any number."""


@lru_cache(maxsize=CARDS_MAX)
def gpu_range(name: str, *, memory_bytes: int | None = None) -> tuple[float, float, tuple[str, ...]]:
    """(low kg, high kg, source ids) of one card; of one that nobody knows, what calculators take for any."""
    spec = find_gpu(name, memory_bytes=memory_bytes)
    own = [] if spec is None else _figures(spec)
    figures = own if len(own) > 1 else [*own, *ANY_GPU_KG]
    kilograms = [kg for kg, _ in figures]
    return min(kilograms), max(kilograms), tuple(dict.fromkeys(source for _, source in figures))


def _figures(spec: GpuSpec) -> list[tuple[float, str]]:
    """Of the very variant, else of the model."""
    of_model = [row for row in GPUS_KG if row[0] == spec.model]
    exact = [row for row in of_model if row[1] in ("", spec.variant)]
    return [(kg, source) for _, _, kg, source in exact or of_model]


def embodied_share(*, gpus: Sequence[tuple[str, int]], host_share: float, seconds: float) -> Embodied:
    """What a run of `seconds` carries of its GPUs (name, bytes of memory) and of `host_share` of a server."""
    parts = []
    for name, memory_bytes in dict.fromkeys(gpus):
        low, high, sources = gpu_range(name, memory_bytes=memory_bytes)
        count = float(sum(each == (name, memory_bytes) for each in gpus))
        parts.append(EmbodiedPart(what=name, count=count, low_kg=low, high_kg=high, sources=sources))
    low, high, source = SERVER_KG
    share = min(1.0, max(0.0, host_share))
    parts.append(EmbodiedPart(what=SERVER, count=share, low_kg=low, high_kg=high, sources=(source,)))
    low_grams, high_grams = embodied_grams(
        tuple(parts), seconds=seconds, life_years_short=LIFE_YEARS_SHORT, life_years_long=LIFE_YEARS_LONG
    )
    return Embodied(
        low_grams=low_grams,
        high_grams=high_grams,
        seconds=seconds,
        life_years_short=LIFE_YEARS_SHORT,
        life_years_long=LIFE_YEARS_LONG,
        parts=tuple(parts),
    )
