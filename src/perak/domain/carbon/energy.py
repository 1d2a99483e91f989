"""Energy of a run where nothing measures it, and the carbon of energy.

The models are linear between idle and full power. They count what the run has for itself: its share of the
CPU and memory, or its GPUs; nothing of fans, disks or power supplies. Each answer carries its uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from perak.domain.carbon.intensity import Intensity
from perak.domain.facts.power import (
    CPU_IDLE_SHARE,
    CPU_WATTS_PER_CORE,
    GPU_IDLE_SHARE,
    GPU_TRAINING_SHARE,
    MEMORY_WATTS_PER_GB,
    PUE_UNKNOWN,
)
from perak.domain.footprint import JOULES_PER_KWH, YEARLY_AVERAGE, Carbon, Energy

CPU_UNCERTAINTY_PERCENT = 70.0
"""Processors lie between 3.8 and 23.8 W per core, and a logical CPU may be half a core; 12 W is assumed."""
GPU_UNCERTAINTY_PERCENT = 40.0
"""With the use known: use says that some kernel ran, not how hard, and TDP is a limit, not a habit."""
GPU_TYPICAL_UNCERTAINTY_PERCENT = 75.0
"""Without it: eight in ten of the training runs that Zeus measured drew 15 to 90 percent of TDP."""


def cpu_energy(*, cpu_seconds: float, seconds: float, cpu_milli: int, memory_bytes: int) -> Energy:
    """Energy of a run that had `cpu_milli` and `memory_bytes` for `seconds` and used `cpu_seconds` of CPU.

    A logical CPU counts as a core, which errs high where cores have two threads.
    """
    cores = cpu_milli / 1000
    idle = CPU_IDLE_SHARE * cores * seconds
    busy = (1 - CPU_IDLE_SHARE) * cpu_seconds
    memory = MEMORY_WATTS_PER_GB * memory_bytes / 1e9 * seconds
    return Energy(
        joules=CPU_WATTS_PER_CORE * (idle + busy) + memory,
        method=f"model: {CPU_WATTS_PER_CORE:g} W per core x use, {MEMORY_WATTS_PER_GB:g} W per GB",
        uncertainty_percent=CPU_UNCERTAINTY_PERCENT,
    )


def gpu_energy(*, tdp_watts: float, seconds: float, utilisation: float | None = None) -> Energy:
    """Energy of one GPU held for `seconds`; `utilisation` is 0 to 1, None where it can't be read."""
    return Energy(
        joules=gpu_watts(tdp_watts=tdp_watts, utilisation=utilisation) * seconds,
        method=f"model: TDP {tdp_watts:g} W x {'typical training' if utilisation is None else 'use'}",
        uncertainty_percent=(
            GPU_TYPICAL_UNCERTAINTY_PERCENT if utilisation is None else GPU_UNCERTAINTY_PERCENT
        ),
    )


def cpu_watts(*, cpu_milli: int, memory_bytes: int, utilisation: float = 1.0) -> float:
    """Power to expect of a run on CPUs, for a quote; `utilisation` is 0 to 1."""
    used = cpu_milli / 1000 * _share(utilisation)
    return cpu_energy(cpu_seconds=used, seconds=1, cpu_milli=cpu_milli, memory_bytes=memory_bytes).joules


def gpu_watts(*, tdp_watts: float, utilisation: float | None = None) -> float:
    """Power to expect of one GPU; without a `utilisation` that of typical training."""
    if utilisation is None:
        return tdp_watts * GPU_TRAINING_SHARE
    return tdp_watts * (GPU_IDLE_SHARE + (1 - GPU_IDLE_SHARE) * _share(utilisation))


def total_energy(parts: Sequence[Energy]) -> Energy:
    """The sum of a run's parts. Uncertainties add up weighted, as if all erred the same way (cautious)."""
    assert parts, "a run has at least one part"
    joules = math.fsum(part.joules for part in parts)
    spread = math.fsum(part.joules * part.uncertainty_percent for part in parts)
    return Energy(
        joules=joules,
        method=" + ".join(dict.fromkeys(part.method for part in parts)),
        uncertainty_percent=spread / joules if joules else max(part.uncertainty_percent for part in parts),
    )


def operational_carbon(joules: float, intensity: Intensity, *, pue: float = PUE_UNKNOWN) -> Carbon:
    """Grams CO2e of `joules` at the plug of the computer: kWh x g/kWh x PUE of the site."""
    assert pue >= 1
    return Carbon(
        grams=joules / JOULES_PER_KWH * intensity.grams_per_kwh * pue,
        grams_per_kwh=intensity.grams_per_kwh,
        pue=pue,
        region=intensity.region,
        method=YEARLY_AVERAGE,
        source=intensity.source,
        year=intensity.year,
    )


def _share(utilisation: float) -> float:
    return min(1.0, max(0.0, utilisation))
