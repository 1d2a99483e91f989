"""Which node among equals takes a job: fragmentation in expectation, and room for what usually comes.

A node's *fragment*, by Weng et al. (Fragmentation Gradient Descent, ATC 2023), is what of its free GPUs
the usual
jobs could not use, in expectation over them; FGD takes the node whose fragment grows least. Our policy
(`ours`) keeps that gradient, and leaves out what made it coarse; `docs/market.md` says what each part gives.

GPU shares are in thousandths; CPU in thousandths of a core; memory in any one unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

GPU = 1000
"""Thousandths of a GPU."""
GPUS_MAX = 8
"""GPUs of a node that a policy looks at."""
POPULAR = 0.95
"""Share of jobs that the typical ones cover."""


@dataclass(frozen=True, slots=True, order=True)
class Demand:
    """What a job takes of one node: `gpus` GPUs, `gpu_milli` of each, and CPU."""

    cpu_milli: int
    gpu_milli: int
    gpus: int


class Typical(NamedTuple):
    """The usual jobs and how often each comes; frequencies sum to one."""

    cpu_milli: Ints
    gpu_milli: Ints
    gpus: Ints
    frequency: Floats


def typical(jobs: Sequence[Demand], *, popular: float = POPULAR) -> Typical:
    """The most frequent demands that together cover `popular` of `jobs`, renormalised."""
    counts = sorted(Counter(jobs).items(), key=lambda item: (item[1], item[0]), reverse=True)
    chosen: list[tuple[Demand, int]] = []
    covered = 0
    for demand, count in counts:
        if covered >= popular * len(jobs):
            break
        chosen.append((demand, count))
        covered += count
    return Typical(
        cpu_milli=np.array([d.cpu_milli for d, _ in chosen], np.int64),
        gpu_milli=np.array([d.gpu_milli for d, _ in chosen], np.int64),
        gpus=np.array([d.gpus for d, _ in chosen], np.int64),
        frequency=np.array([n / max(1, covered) for _, n in chosen]),
    )


WEIGHTS = (0.02, 8000.0, 0.2)
"""Of our policy: a free GPU that is left on a node counts against it as this much of a GPU more fragment;
a free
GPU wants this many thousandths of a core beside it; and each core that it lacks counts as this much of
one."""
