"""How far the auction's plans are from the best whole plan, by column generation and HiGHS.

A plan is a filling of each class (which jobs, on which offers) in which no job is in two classes. The LP
over all fillings, of which only those that matter are made (Dantzig and Wolfe 1960), has a bound that is far
nearer to the best plan than one that divides gangs, as each filling is whole. HiGHS solves that LP, and then
chooses whole fillings, of some classes at a time: a plan, checked by other code. The best plan is worth at
least that much and at most the bound.

The bound is the Lagrangian one, at any prices of jobs: what jobs pay and what each class's best filling is
worth then. Fillings are found exactly (benchmarks/class_filling.py). Prices stay within a box around the best
so far (Marsten, Hogan and Blankenship 1975): without it the LP's are of no use for hundreds of rounds.

Markets of offers and groups of 1, 2, 4 and 8 devices only, of some thousand jobs at most.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.market_instances import Shape, Table, standard, thin

if TYPE_CHECKING:
    from benchmarks.class_filling import Places

SEEDS = (401, 402, 1, 2, 101, 102)
"""The first two were not used in development."""
ROUNDS_MAX = 120
SECONDS_MAX = 40.0
"""Of column generation; a market that has not converged by then has a bound all the same."""
PLAN_SECONDS = 45.0
"""Of the search for a plan. Both are of processor time."""
TOGETHER = 24
"""Classes that HiGHS chooses the best fillings of at once; all 144 are too many for it."""
ASKED = 3
"""Rounds of new fillings before it chooses."""
CHOICE_SECONDS = 5.0
FIXED, WHOLE, HALF = 0.12, 0.999, 0.3
"""A dive fixes at a time what the LP has whole, and for a share of the classes what it has HALF of."""
TOLERANCE = 1e-5
"""Share of the welfare by which the bounds of all fillings may be above what was found."""
CLOSE = 3e-4
"""Column generation ends when LP and bound are as near."""
ENTRIES_MAX, ENTRIES_FEW = 150_000, 50_000
"""Numbers of groups that are looked at in a class, for the bound and for a plan."""
RADIUS = 0.01
"""How far from the best prices so far the next may lie at first, as a share of the most a job could gain."""
STEPS = 400
"""Of the subgradient that finds prices to start from, with gangs divided, which costs a millisecond each."""


@dataclass(slots=True)
class Fillings:
    """Fillings of classes that were found, without doubles."""

    kind: list[int] = field(default_factory=list)
    worth: list[float] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    """Of each filling rows (edge, offer, devices)."""
    at: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, kind: int, rows: Any, places: Places) -> bool:
        """Whether the filling is new, or better than the one of the same jobs."""
        edges, offers, devices = rows[:, 0], rows[:, 1], rows[:, 2]
        chosen = np.unique(edges)
        cost = float((places.hours[edges] * places.ask[offers] * devices).sum())
        worth = float(places.worth[chosen].sum()) - cost
        key = (kind, *chosen.tolist())
        at = self.at.get(key)
        if at is not None:
            if worth <= self.worth[at] + 1e-9:
                return False
            self.worth[at], self.rows[at] = worth, rows
            return True
        self.at[key] = len(self.kind)
        self.kind.append(kind)
        self.worth.append(worth)
        self.jobs.append(places.job[chosen])
        self.rows.append(rows)
        return True


def measure() -> Iterator[tuple[str, float, str]]:
    for name, make, seeds in (
        ("1k_x_1k", lambda seed: standard(Shape(offers=1_000, jobs=1_000), seed), SEEDS),
        ("thin_1k_x_1k", lambda seed: thin(100, seed), SEEDS[:1]),
    ):
        found = [_compared(f"{name} {seed}", make(seed)) for seed in seeds]
        yield f"market_{name}_to_mip_percent", _mean(1 - ours / best for ours, best, _ in found), "%"
        yield f"market_{name}_to_bound_percent", _mean(1 - ours / bound for ours, _, bound in found), "%"
        yield f"market_{name}_mip_to_bound_percent", _mean(1 - best / bound for _, best, bound in found), "%"


def _mean(shares: Iterator[float]) -> float:
    return round(100 * statistics.mean(shares), 3)


def _compared(name: str, tables: tuple[Table, Table]) -> tuple[float, float, float]:
    """(welfare of the auction's plan, of the best plan found, bound on any plan's)."""
    from benchmarks.market import _read, _rows
    from perak.domain.market.auction import auction
    from perak.domain.market.clearing import Plan, welfare
    from perak.sim.clearing_check import audit
    from perak.sim.clearing_rows import plan_rows

    market = _read(tables)
    jobs, offers = market.jobs, market.offers
    ours = auction(jobs, offers).plan
    reached = welfare(ours, jobs, offers)
    places, order = places_of(jobs, offers)
    fillings = Fillings()
    _add_plan(fillings, ours, places, order)
    bound, paid = generate(fillings, places, jobs.count, reached)
    chosen = plan_of(fillings, places, jobs.count, paid)
    rows = np.concatenate([fillings.rows[x] for x in chosen])
    place = order[rows[:, 1]]
    plan = Plan(job=places.job[rows[:, 0]], offer=place, devices=rows[:, 2], pays=offers.price[place])
    checked = audit(*(_rows(table) for table in tables), plan_rows(plan, market))
    assert not checked.violations, checked.violations[0]
    best = max(reached, checked.welfare)
    print(
        f"{name}: ours {reached:.2f} is {100 * (1 - reached / best):.3f}% below the best plan, {best:.2f}, "
        f"and {100 * (1 - reached / bound):.3f}% below the bound, {bound:.2f}",
        file=sys.stderr,
    )
    return reached, best, bound


def places_of(jobs: Any, offers: Any) -> tuple[Places, Any]:
    """The market's classes as the fillings need them, and the offers' places in the caller's arrays."""
    from benchmarks.class_filling import LARGEST, Places
    from perak.domain.market.auction import fits_of, market_of

    market = market_of(jobs, offers)
    edges = fits_of(market).edges
    powers = [1 << level for level in range(LARGEST.bit_length())]
    assert set(market.stock.devices) | set(jobs.per_node) <= set(powers), (
        "offers and groups are of 1, 2, 4, 8"
    )
    job, kind = np.repeat(np.arange(jobs.count), np.diff(edges.start)), edges.kind.astype(np.int64)
    by_class = np.lexsort((-edges.hours, kind))
    job, kind = job[by_class], kind[by_class]
    level = np.log2(jobs.per_node[job]).astype(np.int64)
    hours, least = edges.hours[by_class], np.empty(len(job))
    start = market.stock.start
    for c, m in np.unique(np.stack([kind, level], axis=1), axis=0):
        group = 1 << m
        first, last = start[c], start[c + 1]
        asks = np.repeat(market.stock.price[first:last], market.stock.devices[first:last] // group) * group
        total = np.concatenate([[0.0], np.cumsum(asks)])
        mine = np.flatnonzero((kind == c) & (level == m))
        least[mine] = hours[mine] * total[jobs.devices[job[mine]] // group]
    return Places(
        offer_start=start,
        size=market.stock.devices,
        ask=market.stock.price,
        edge_start=np.searchsorted(kind, np.arange(len(start))),
        job=job,
        devices=jobs.devices[job],
        level=level,
        hours=hours,
        worth=edges.worth[by_class],
        least=least,
    ), market.order


def generate(fillings: Fillings, places: Places, jobs: int, reached: float) -> tuple[float, Any]:
    """Add fillings until the LP over them is as good as over all: (bound on any plan, prices of jobs)."""
    from benchmarks.class_filling import fill

    ask, classes = _start(places, jobs, reached), len(places.offer_start) - 1
    scale, every = _hopes(places, jobs), np.arange(classes)
    fill(places, every, ask, True, np.inf, 0)  # Compiled, so that this is not part of the time.
    began = time.process_time()
    best, best_paid, radius, lp, rounds = np.inf, ask, RADIUS, -np.inf, 0
    while rounds < ROUNDS_MAX:
        rounds += 1
        _, bound, rows = fill(places, every, ask, True, TOLERANCE * reached / classes, ENTRIES_MAX)
        total = float(ask.sum() + bound.sum())
        _add(fillings, rows, places)
        hoped = best - lp
        if total < best:
            radius *= 1.5 if best - total > 0.5 * hoped else 1.0
            best, best_paid = total, ask
        elif total - best > hoped:
            radius *= 0.7
        if lp > (1 - CLOSE) * best or time.process_time() - began > SECONDS_MAX:
            break
        low, high = np.maximum(0.0, best_paid - radius * scale), best_paid + radius * scale
        lp, ask, _ = _prices(fillings, np.arange(len(fillings.kind)), jobs, classes, low, high)
    took = time.process_time() - began
    print(f"  {rounds} rounds in {took:.1f} s: LP {lp:.2f}, bound {best:.2f}", file=sys.stderr)
    return best, best_paid


def _start(places: Places, jobs: int, reached: float) -> Any:
    """Prices of jobs at which the bound with divided gangs is about lowest, by subgradient steps."""
    from benchmarks.class_filling import fill

    most, every = _hopes(places, jobs), np.arange(len(places.offer_start) - 1)
    paid, best, best_paid = 0.5 * most, np.inf, most
    length, stalled, direction = 1.0, 0, np.zeros(jobs)
    for _ in range(STEPS):
        value, _, rows = fill(places, every, paid, False, 0.0, 0)
        total = float(paid.sum() + value.sum())
        if total < best:
            best, best_paid, stalled = total, paid, 0
        else:
            stalled += 1
        if stalled > 12:
            length, stalled, paid = length * 0.7, 0, best_paid
            direction[:] = 0.0
            continue
        slack = 1.0 - np.bincount(places.job[rows[:, 0]], minlength=jobs)
        slack[(paid <= 0) & (slack > 0)] = 0.0
        direction = 0.7 * direction + 0.3 * slack
        norm = float(direction @ direction)
        if norm == 0.0 or total <= reached:
            break
        paid = np.maximum(0.0, paid - 0.5 * length * (total - reached) / norm * direction)
    return best_paid


def _add(fillings: Fillings, rows: Any, places: Places) -> int:
    if not len(rows):
        return 0
    kind = np.searchsorted(places.edge_start, rows[:, 0], side="right") - 1
    cut = np.flatnonzero(np.diff(kind)) + 1
    return sum(
        fillings.add(int(of[0]), part, places)
        for of, part in zip(np.split(kind, cut), np.split(rows, cut), strict=True)
    )


def _add_plan(fillings: Fillings, plan: Any, places: Places, order: Any) -> None:
    place = np.argsort(order)[plan.offer]
    kind = np.searchsorted(places.offer_start, place, side="right") - 1
    edge_of = {}
    for c in np.unique(kind):
        for e in range(places.edge_start[c], places.edge_start[c + 1]):
            edge_of[int(c), int(places.job[e])] = e
    edge = np.array([edge_of[int(c), int(j)] for c, j in zip(kind, plan.job, strict=True)], np.int64)
    by_class = np.argsort(kind, kind="stable")
    _add(fillings, np.stack([edge, place, plan.devices], axis=1)[by_class], places)


def _matrix(fillings: Fillings, keep: Any, jobs: int, classes: int) -> Any:
    """[job, then class; filling of `keep`]: which jobs and class it has."""
    from scipy.sparse import csc_array

    rows = [np.append(fillings.jobs[x], jobs + fillings.kind[x]) for x in keep]
    start = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    index = np.concatenate(rows)
    return csc_array((np.ones(len(index)), index, start), shape=(jobs + classes, len(rows)))


def _prices(
    fillings: Fillings, some: Any, jobs: int, classes: int, low: Any, high: Any
) -> tuple[float, Any, Any]:
    """(the lowest bound that `some` fillings allow, its prices of jobs, the share of each filling).

    Prices are from `low` to `high`.
    """
    from scipy.optimize import linprog

    found = linprog(
        np.ones(jobs + classes),
        A_ub=-_matrix(fillings, some, jobs, classes).T.tocsc(),
        b_ub=-np.array(fillings.worth)[some],
        bounds=np.stack(
            [np.append(low, np.zeros(classes)), np.append(high, np.full(classes, np.inf))], axis=1
        ),
        method="highs",
    )
    return float(found.fun), found.x[:jobs], -found.ineqlin.marginals


def plan_of(fillings: Fillings, places: Places, jobs: int, paid: Any, seed: int = 1) -> list[int]:
    """A good plan, as fillings: by diving; then the best of some classes together, again and again."""
    classes = len(places.offer_start) - 1
    began, rng = time.process_time(), np.random.default_rng(seed)
    plan = _dive(fillings, places, jobs, paid)
    dived, took = sum(fillings.worth[x] for x in plan.values()), time.process_time() - began
    trials = 0
    while time.process_time() - began < PLAN_SECONDS:
        trials += 1
        some = rng.choice(classes, min(TOGETHER, classes), replace=False)
        held = {c: x for c, x in plan.items() if c not in set(some.tolist())}
        free = np.ones(jobs, bool)
        for x in held.values():
            free[fillings.jobs[x]] = False
        chosen = _best_of(fillings, places, some, free, paid)
        before = sum(fillings.worth[plan[c]] for c in plan.keys() - held.keys())
        if sum(fillings.worth[x] for x in chosen) > before:
            plan = held | {fillings.kind[x]: x for x in chosen}
    found = sum(fillings.worth[x] for x in plan.values())
    print(f"  dive {dived:.2f} in {took:.1f} s, then {trials} trials: {found:.2f}", file=sys.stderr)
    return list(plan.values())


def _dive(fillings: Fillings, places: Places, jobs: int, paid: Any) -> dict[int, int]:
    """By class a filling: fix what the LP has most of, ask for new fillings of the others, and so on."""
    classes = len(places.offer_start) - 1
    free, left, plan = np.ones(jobs, bool), np.ones(classes, bool), {}
    while left.any():
        fits, paid = _asked(fillings, places, np.flatnonzero(left), free, paid)
        if not len(fits):
            break
        most = np.where(free, np.inf, 0.0)
        _, _, share = _prices(fillings, fits, jobs, classes, np.zeros(jobs), most)
        few, fixed = max(1, round(FIXED * left.sum())), 0
        for at in np.argsort(-share):
            x = fits[at]
            if share[at] < WHOLE and (fixed >= few or (fixed and share[at] < HALF)):
                break
            if left[fillings.kind[x]] and free[fillings.jobs[x]].all():
                plan[fillings.kind[x]] = int(x)
                left[fillings.kind[x]], free[fillings.jobs[x]] = False, False
                fixed += 1
    return plan


def _best_of(fillings: Fillings, places: Places, some: Any, free: Any, paid: Any) -> list[int]:
    """The best fillings of some classes together, of jobs that are free, as far as HiGHS finds them."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    fits, _ = _asked(fillings, places, some, free, paid)
    if not len(fits):
        return []
    matrix = _matrix(fillings, fits, len(free), len(places.offer_start) - 1)
    found = milp(
        -np.array(fillings.worth)[fits],
        integrality=np.ones(len(fits)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(matrix, -np.inf, 1.0)],
        options={"time_limit": CHOICE_SECONDS, "mip_rel_gap": 1e-5},
    )
    return [] if found.x is None else [int(fits[i]) for i in np.flatnonzero(found.x > 0.5)]


def _asked(fillings: Fillings, places: Places, some: Any, free: Any, paid: Any) -> tuple[Any, Any]:
    """(fillings of some classes that free jobs allow, prices), after rounds of asking for better ones."""
    from benchmarks.class_filling import fill

    jobs, classes = len(free), len(places.offer_start) - 1
    wanted, room = np.zeros(classes, bool), RADIUS * _hopes(places, jobs)
    wanted[some] = True
    tolerance = TOLERANCE * float(paid.sum()) / classes
    for turn in range(ASKED + 1):
        fits = np.array(
            [x for x in np.flatnonzero(wanted[fillings.kind]) if free[fillings.jobs[x]].all()], np.int64
        )
        if turn == ASKED:
            break
        if len(fits):
            low, high = np.where(free, np.maximum(0.0, paid - room), 0.0), np.where(free, paid + room, 0.0)
            _, paid, _ = _prices(fillings, fits, jobs, classes, low, high)
        _, _, rows = fill(places, some, np.where(free, paid, np.inf), True, tolerance, ENTRIES_FEW)
        if not _add(fillings, rows, places):
            break
    return fits, paid


def _hopes(places: Places, jobs: int) -> Any:
    """By job: the most that it could gain in any class."""
    most = np.zeros(jobs)
    np.maximum.at(most, places.job, places.worth - places.least)
    return most
