"""How much longer a job takes on one GPU than on another: a roofline of measured rates, else of data sheets.

A job is bound by memory bandwidth or by arithmetic, and which of them is not known beforehand. So the ratio
of times is the geometric mean of both bounds' ratios; its interval reaches from the better to the worse one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from perak.domain.hardware.specs import GpuSpec, find_gpu
from perak.domain.hardware.standing import UNGRADED, Standing

REACHED_SHARE = 0.8
"""How much of a data sheet's rate a measurement of a healthy card reaches, about: peaks are never reached,
and a measured card is compared with one that is known by its sheet alone."""


OTHER_CARD_SPREAD = 2.0
"""How far a job's own ratio lies beyond the rates', each way, for four in five of the trainings that Gavel
(OSDI 2020) measured on K80, P100 and V100: input pipelines and batch sizes differ more than cards do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """A GPU's rates: 1e9 bytes/s and 1e12 FLOP/s. `matrix_tflops`: FP16 with FP32 sums on tensor or matrix
    cores, None where it has none. `measured`: at least one was measured on the card itself."""

    bandwidth_gbs: float
    fp32_tflops: float | None
    matrix_tflops: float | None
    measured: bool = False
    variant: str | None = None
    """Which card's they are; None: one that is not in the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Time on one device over time on another: the expected one, and the bounds that a roofline leaves."""

    expected: float
    low: float
    high: float


def sheet_speeds(name: str, *, memory_bytes: int | None = None) -> Speeds | None:
    """The data sheet's rates of a GPU; None where it is not in the table."""
    spec = find_gpu(name, memory_bytes=memory_bytes)
    return None if spec is None else _of_spec(spec)


def speeds_of(name: str, *, memory_bytes: int | None = None, standing: Standing = UNGRADED) -> Speeds | None:
    """What was measured on the card, and where it was not, its data sheet at REACHED_SHARE."""
    sheet = sheet_speeds(name, memory_bytes=memory_bytes)
    if standing.bandwidth_gbs is None and standing.fp32_tflops is None:
        return sheet
    if sheet is None:
        if standing.bandwidth_gbs is None:
            return None
        return Speeds(
            bandwidth_gbs=standing.bandwidth_gbs / REACHED_SHARE,
            fp32_tflops=_full(standing.fp32_tflops),
            matrix_tflops=None,
            measured=True,
        )
    return Speeds(
        bandwidth_gbs=_full(standing.bandwidth_gbs) or sheet.bandwidth_gbs,
        fp32_tflops=_full(standing.fp32_tflops) or sheet.fp32_tflops,
        matrix_tflops=sheet.matrix_tflops,
        measured=True,
        variant=sheet.variant,
    )


def time_ratio(*, reference: Speeds, target: Speeds) -> Ratio:
    """How much longer the job takes on `target` than on `reference`."""
    ratios = [reference.bandwidth_gbs / target.bandwidth_gbs]
    if reference.matrix_tflops and target.matrix_tflops:
        ratios.append(reference.matrix_tflops / target.matrix_tflops)
    elif reference.fp32_tflops and target.fp32_tflops:
        ratios.append(reference.fp32_tflops / target.fp32_tflops)
    expected = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    if reference.fp32_tflops and target.fp32_tflops:
        ratios.append(reference.fp32_tflops / target.fp32_tflops)
    spread = 1.0 if reference.variant and reference.variant == target.variant else OTHER_CARD_SPREAD
    return Ratio(expected=expected, low=min(ratios) / spread, high=max(ratios) * spread)


def _of_spec(spec: GpuSpec) -> Speeds:
    return Speeds(
        bandwidth_gbs=float(spec.bandwidth_gbs),
        fp32_tflops=spec.fp32_tflops,
        matrix_tflops=spec.tensor_fp16_tflops,
        variant=spec.variant,
    )


def _full(measured: float | None) -> float | None:
    """The sheet's rate of a healthy card on which this was measured."""
    return None if measured is None else measured / REACHED_SHARE
