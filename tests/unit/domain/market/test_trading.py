"""Jobs of one size trade places: to within the step of the best assignment, and never to a worse one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from perak.domain.market import kernels
from perak.domain.market.clearing import Ints
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock
from perak.domain.market.kernels.trading import Places, places_of

CLASSES, SIZE, JOBS = 4, 8, 60
STEP = 0.03


class World:
    """Offers of one gang each, and twice as many jobs as these; who came first has one, at any ask."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.devices = rng.choice([1, 2, 4], JOBS)
        self.per_node = np.minimum(self.devices, rng.choice([1, 2, 4], JOBS))
        self.rate = rng.uniform(0.5, 2.0, CLASSES)
        self.hours = rng.uniform(1.0, 10.0, JOBS)[:, None] / self.rate[None, :]
        self.worth = self.devices[:, None] * rng.uniform(5.0, 30.0, (JOBS, CLASSES))
        self.fits = rng.random((JOBS, CLASSES)) < 0.8
        self.offer_kind = np.repeat(np.arange(CLASSES), SIZE)
        self.ask = rng.uniform(0.5, 2.0, CLASSES * SIZE)
        job, kind = np.nonzero(self.fits)
        self.edges = Edges(
            start=np.searchsorted(job, np.arange(JOBS + 1)).astype(np.int64),
            kind=kind.astype(np.int32),
            worth=self.worth[job, kind],
            hours=self.hours[job, kind],
        )
        self.gangs = Gangs(self.devices, self.per_node, np.zeros(JOBS, np.int64))
        self.rows = self._first_come(rng)
        self.won = np.full(JOBS, -1)
        for j, o, _ in self.rows:
            self.won[j] = self._edge(j, self.offer_kind[o])

    def _first_come(self, rng: np.random.Generator) -> Ints:
        """Rows (job, offer, devices); every third gang is of two parts, on two offers of its class."""
        rows, free = [], list(rng.permutation(CLASSES * SIZE))
        for j in range(JOBS):
            mine = [o for o in free if self.fits[j, self.offer_kind[o]] and self._gain(j, o) > 0]
            two = j % 3 == 0 and self.devices[j] > self.per_node[j]
            for o in mine:
                pair = [q for q in mine if q != o and self.offer_kind[q] == self.offer_kind[o]]
                if two and not pair:
                    continue
                held = (o, pair[0]) if two else (o,)
                rows += [(j, q, self.devices[j] // len(held)) for q in held]
                free = [q for q in free if q not in held]
                break
        return np.array(rows)

    def _edge(self, j: int, kind: int) -> int:
        first, last = self.edges.start[j], self.edges.start[j + 1]
        return int(first + np.flatnonzero(self.edges.kind[first:last] == kind)[0])

    def _gain(self, j: int, o: int) -> float:
        kind = self.offer_kind[o]
        return float(self.worth[j, kind] - self.hours[j, kind] * self.devices[j] * self.ask[o])

    def stock(self) -> Stock:
        none, zeros = np.zeros(0, np.int64), np.zeros(0)
        return Stock(
            start=np.arange(CLASSES + 1) * SIZE,
            devices=none,
            price=self.ask,
            by_size=none,
            size=none,
            table=none,
            capacity=none,
            device_start=none,
            ask_sum=zeros,
            level_start=none,
            level_asks=zeros,
        )

    def gains(self, places: Places) -> dict[int, np.ndarray]:
        """By size: what each job of it would gain by each place of it; -inf where that can't be."""
        found = {}
        for z, size in enumerate(np.unique(self.devices)):
            jobs = np.flatnonzero(self.devices == size)
            gain = np.full((len(jobs), places.first[z, -1] - places.first[z, 0]), -np.inf)
            for c in range(CLASSES):
                for s in range(places.first[z, c], places.first[z, c + 1]):
                    can = self.fits[jobs, c] & (places.grain[s] % self.per_node[jobs] == 0)
                    value = self.worth[jobs, c] - self.hours[jobs, c] * places.ask[s]
                    gain[:, s - places.first[z, 0]] = np.where(can, value, -np.inf)
            found[z] = gain
        return found


@pytest.mark.parametrize("seed", range(20))
def test_places_end_with_those_who_gain_most_by_them_together(seed: int) -> None:
    world = World(seed)
    places, place = places_of(world.edges, world.gangs, world.stock(), world.rows)
    before = places.holder.copy()
    assert (before[place] == world.rows[:, 0]).all()
    kernels.trade(world.edges, world.gangs, places, world.won, 0.0, STEP)
    for z, gain in world.gains(places).items():
        jobs = np.flatnonzero(world.devices == np.unique(world.devices)[z])
        first, last = places.first[z, 0], places.first[z, -1]
        held = [(np.searchsorted(jobs, j), s) for s, j in enumerate(places.holder[first:last]) if j >= 0]
        had = [(np.searchsorted(jobs, j), s) for s, j in enumerate(before[first:last])]
        got, was = (sum(gain[each] for each in pairs) for pairs in (held, had))
        open_to = np.where(gain > 0, gain, 0.0)
        most = open_to[linear_sum_assignment(-open_to)].sum()
        assert was <= got <= most + 1e-9, "who holds a place can have it"
        assert got >= most - STEP * was, f"{was} became {got}, and could be {most}"


@pytest.mark.parametrize("seed", range(5))
def test_a_job_has_one_place_and_the_edge_to_it(seed: int) -> None:
    world = World(seed)
    places, _ = places_of(world.edges, world.gangs, world.stock(), world.rows)
    kernels.trade(world.edges, world.gangs, places, world.won, 0.85, 0.01)
    held = places.holder[places.holder >= 0]
    assert len(set(held)) == len(held)
    assert set(np.flatnonzero(world.won >= 0)) == set(held)
    kind = np.repeat(np.tile(np.arange(CLASSES), len(places.first)), np.diff(places.first, axis=1).ravel())
    for s in np.flatnonzero(places.holder >= 0):
        j = places.holder[s]
        assert world.edges.kind[world.won[j]] == kind[s]
        assert world.edges.start[j] <= world.won[j] < world.edges.start[j + 1]


@pytest.mark.parametrize("step", [1e6, float("inf")])
def test_steps_that_are_too_large_lose_nothing(step: float) -> None:
    world = World(3)
    places, _ = places_of(world.edges, world.gangs, world.stock(), world.rows)
    before, won = places.holder.copy(), world.won.copy()
    kernels.trade(world.edges, world.gangs, places, world.won, 0.85, step)
    worth, hours = world.edges.worth, world.edges.hours

    def total(holder: Ints, edge: Ints) -> float:
        return float(
            sum(
                worth[edge[j]] - hours[edge[j]] * a for j, a in zip(holder, places.ask, strict=True) if j >= 0
            )
        )

    assert total(places.holder, world.won) >= total(before, won)
