"""Packing: fragments as the paper counts them, and which node each policy takes."""

from __future__ import annotations

import numpy as np
import pytest

from perak.domain.market.kernels import placing
from perak.domain.market.packing import GPUS_MAX, WEIGHTS, Demand, Typical, typical

pytestmark = pytest.mark.timeout(900)
"""The first of them compiles what they run."""


def test_typical_jobs_are_the_most_frequent_that_cover_the_share() -> None:
    often, seldom, rare = Demand(4000, 1000, 1), Demand(8000, 500, 1), Demand(96000, 1000, 8)
    usual = typical([often] * 70 + [seldom] * 27 + [rare] * 3, popular=0.95)
    assert usual.cpu_milli.tolist() == [4000, 8000]
    assert usual.frequency.tolist() == pytest.approx([70 / 97, 27 / 97])


def fragment(usual: Typical, *, cpu: int, gpus: list[int]) -> float:
    free = np.array(gpus, np.int64)
    return float(placing.fragment(cpu, free, len(gpus), usual))


@pytest.mark.parametrize(
    ("cpu", "gpus", "lost"),
    [
        (8000, [1000, 500], 500.0),  # The half can't take the job, the whole one can.
        (8000, [500, 500], 1000.0),  # Enough in all, and no GPU with enough.
        (1000, [1000, 1000], 2000.0),  # GPUs that lack CPU are lost whole.
        (8000, [0, 0], 0.0),
    ],
)
def test_a_fragment_is_what_the_usual_job_could_not_use(cpu: int, gpus: list[int], lost: float) -> None:
    usual = typical([Demand(4000, 1000, 1)])
    assert fragment(usual, cpu=cpu, gpus=gpus) == pytest.approx(lost)


@pytest.mark.parametrize("policy", [placing.FGD, placing.OURS])
def test_a_share_goes_to_the_gpu_that_is_broken_already(policy: int) -> None:
    jobs = [Demand(1000, 500, 1), Demand(1000, 1000, 1)]
    usual = typical(jobs)
    gpus = np.zeros((2, GPUS_MAX), np.int64)
    gpus[0, :2], gpus[1, :2] = 1000, (500, 1000)
    one = np.ones(1, np.int64)
    nodes = placing.Nodes(np.array([64000, 64000]), np.array([100, 100]), gpus, np.array([2, 2]))
    pods = placing.Pods(1000 * one, one, 500 * one, one, 0 * one)
    placed, failed, arrived = placing.place_all(nodes, pods, 1, usual, policy, 10_000, np.array(WEIGHTS))
    assert (placed, failed, arrived) == (500, 0, 500)
    assert gpus[:, :2].tolist() == [[1000, 1000], [0, 1000]]
