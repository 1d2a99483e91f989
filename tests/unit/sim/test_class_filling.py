"""The best filling of a class (benchmarks/class_filling.py), against every filling there is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from benchmarks import class_filling
from benchmarks.class_filling import Places

ALL = np.array([0])
LOOPS = [name for name, each in vars(class_filling).items() if hasattr(each, "py_func")]


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than these classes as plain Python."""
    for name in LOOPS:
        monkeypatch.setattr(class_filling, name, getattr(class_filling, name).py_func)


def drawn(seed: int) -> Places:
    rng = np.random.default_rng(seed)
    size = rng.choice([1, 2, 4, 8], 3)
    ask = np.sort(rng.uniform(0.5, 2.0, 3))
    level = rng.integers(0, 1 + int(np.log2(size.max())), 5)
    devices = (1 << level) * rng.choice([1, 2], 5)
    hours = np.sort(rng.uniform(1.0, 10.0, 5))[::-1].copy()
    return Places(
        offer_start=np.array([0, 3]),
        size=size,
        ask=ask,
        edge_start=np.array([0, 5]),
        job=np.arange(5),
        devices=devices,
        level=level,
        hours=hours,
        worth=devices * hours * rng.uniform(0.8, 2.5, 5),
        least=devices * hours * ask[0],
    )


def best_of_all(places: Places, paid: np.ndarray) -> float:
    """By trying everything: each job on every division of its groups, or not at all."""

    @cache
    def best(job: int, free: tuple[int, ...]) -> float:
        if job == len(places.job):
            return 0.0
        group = 1 << int(places.level[job])
        found = best(job + 1, free)
        for counts in divisions(int(places.devices[job]) // group, [f // group for f in free]):
            cost = sum(n * group * a for n, a in zip(counts, places.ask, strict=True)) * places.hours[job]
            left = tuple(f - n * group for f, n in zip(free, counts, strict=True))
            found = max(found, places.worth[job] - paid[job] - cost + best(job + 1, left))
        return found

    return best(0, tuple(int(n) for n in places.size))


def divisions(groups: int, most: list[int]) -> list[tuple[int, ...]]:
    if not most:
        return [()] if groups == 0 else []
    return [(n, *rest) for n in range(min(groups, most[0]) + 1) for rest in divisions(groups - n, most[1:])]


@pytest.mark.parametrize("seed", range(40))
def test_the_filling_is_the_best_there_is(seed: int) -> None:
    places = drawn(seed)
    paid = np.random.default_rng(seed + 1_000).uniform(0.0, 4.0, 5)
    value, bound, rows = class_filling.fill(places, ALL, paid, True, 0.0, 10_000)
    expected = best_of_all(places, paid)
    assert value[0] == pytest.approx(expected, abs=1e-9)
    assert bound[0] == pytest.approx(expected, abs=1e-9)
    edges, offers, devices = rows.T
    taken = np.bincount(offers, devices, minlength=3)
    assert (taken <= places.size).all()
    chosen = np.unique(edges)
    assert (np.bincount(edges, devices, minlength=5)[chosen] == places.devices[chosen]).all()
    assert (devices == 1 << places.level[edges]).all()
    cost = (places.hours[edges] * places.ask[offers] * devices).sum()
    assert (places.worth[chosen] - paid[chosen]).sum() - cost == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_not_looked_at_is_still_below_the_bound(seed: int) -> None:
    places, nothing = drawn(seed), np.zeros(5)
    expected = best_of_all(places, nothing)
    value, bound, _ = class_filling.fill(places, ALL, nothing, True, 0.0, 1)
    assert value[0] <= expected + 1e-9 <= bound[0] + 2e-9
    divided, above, _ = class_filling.fill(places, ALL, nothing, False, 0.0, 0)
    assert divided[0] == above[0] >= expected - 1e-9
