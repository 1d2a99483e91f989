"""Clear a market: an instant match of each job in turn, or a gang auction over all of them.

The auction has three steps, all on one core. Edges: which jobs fit which classes, and what each would be
worth there. Bids: an auction in the manner of Bertsekas (1988) at the level of classes, whose price is that
of a device; a better bid displaces the cheapest set of winners, whole gangs only, and what devices cost
follows a staircase of asks, the cheapest to those who use them longest. Packing and search: gangs get offers
in whole groups, simulated annealing improves the plan by what it is truly worth, and in the end jobs of one
size bid for each other's places.

A renter pays ask x time and the displacement premium of its class: what the best bid that stayed outside
would have given for a device. It is capped at the bid, so that nobody pays more than a match is worth to
it, and
the provider gets exactly that, less the posted fee. What this does not promise is truthfulness: no mechanism
that is efficient, individually rational and budget-balanced can (Myerson and Satterthwaite 1983), and we
keep the other three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perak.domain.market import kernels
from perak.domain.market.clearing import (
    LEVELS_MAX,
    Floats,
    Ints,
    Jobs,
    Offers,
    Plan,
    runtime_h,
    worth,
)
from perak.domain.market.kernels.shapes import Classes, Edges, Gangs, Stairs, Stock, Wants
from perak.domain.market.searching import search

SWEEPS = 2
"""After the first bids everyone may bid again this often; more gain little."""
EPSILON = 0.01
"""Bids rise by at least this share of what a device is worth to the median job."""
LEAST_EPSILON = 1e-300
"""A smaller one can't be divided by."""
LEAST_HOURS = 1e-260
"""Shorter work has no logarithm worth a staircase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Offers and jobs, ready for matching. `size` and `level` are of the sizes of groups that jobs have."""

    order: Ints
    """The offers' places in the caller's arrays."""
    stock: Stock
    first_ask: Floats
    """[class, level]: the lowest of an offer that fits."""
    classes: Classes
    wants: Wants
    gangs: Gangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """Jobs on the classes that fit them."""

    edges: Edges
    bins: Ints
    """By edge, of its hours: places in `steps`."""
    steps: Floats
    hope: Floats
    """By job: the most that a device could be worth to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A plan, and what prices it left: `premium` per device of each class, `bids` and `trials` it took."""

    plan: Plan
    premium: Floats
    bids: int = 0
    trials: int = 0


def instant(jobs: Jobs, offers: Offers) -> Cleared:
    """Match each job in its turn, to the class where it is best off and the cheapest asks there."""
    market = market_of(jobs, offers)
    rows = kernels.instant(market.wants, market.gangs, market.classes, market.stock)
    free = np.zeros(offers.classes)
    return Cleared(plan=_priced(rows, jobs, offers, market, free), premium=free)


def auction(jobs: Jobs, offers: Offers, *, epsilon: float | None = None, seed: int = 1) -> Cleared:
    """Match all jobs together. `epsilon`: the least step of a bid, in money per device; None: EPSILON.

    A larger one is quicker, and further from the optimum. The same `seed` gives the same plan.
    """
    market = market_of(jobs, offers)
    fits = fits_of(market)
    edges, gangs, stock = fits.edges, market.gangs, market.stock
    if not len(edges.kind):
        none, free = np.zeros((0, 3), np.int64), np.zeros(offers.classes)
        return Cleared(plan=_priced(none, jobs, offers, market, free), premium=free)
    order = np.argsort(-fits.hope, kind="stable")[: int((fits.hope > 0).sum())]
    usual = _usual_epsilon(fits)
    epsilon = usual if epsilon is None else epsilon
    sizes = _few(jobs.devices)
    gang = np.abs(jobs.devices[:, None] - sizes[None, :]).argmin(axis=1)
    shape = offers.classes, len(stock.size), len(sizes), kernels.BINS
    stairs = Stairs(at=np.zeros(shape), slope=np.zeros(shape), gangs=sizes, steps=fits.steps)
    won, price, bids = kernels.auction(edges, fits.bins, gangs, gang, order, stock, stairs, epsilon, SWEEPS)
    edges, guess, won = kernels.promising(edges, fits.bins, gangs, gang, stairs, won)
    rows, trials = search(edges, guess, price, gangs, stock, won, coarse=epsilon / usual, seed=seed)
    premium = _premium(guess, edges, won, jobs, offers)
    plan = _priced(rows, jobs, offers, market, premium)
    return Cleared(plan=plan, premium=premium, bids=int(bids), trials=trials)


def market_of(jobs: Jobs, offers: Offers) -> Market:
    """The offers by class and ask, for the sizes of groups that these jobs have, and the jobs."""
    order = np.lexsort((offers.price, offers.kind))
    kind, devices, price = offers.kind[order], offers.devices[order], offers.price[order]
    start = np.searchsorted(kind, np.arange(offers.classes + 1)).astype(np.int64)
    per_node = np.maximum(1, jobs.per_node)
    size = _few(per_node) if jobs.count else np.ones(1, np.int64)
    whole = np.arange(int(devices.max(initial=0)) + 1)
    capacity = np.zeros((offers.classes, len(size)), np.int64)
    first_ask = np.zeros((offers.classes, len(size)))
    kernels.class_capacity(start, size, devices, price, capacity, first_ask)
    level_start, level_asks = _level_sums(devices, price, kind, size, capacity)
    stock = Stock(
        start=start, devices=devices, price=price, by_size=np.lexsort((price, devices, kind)), size=size,
        table=np.array([whole // each * each for each in size]), capacity=capacity,
        device_start=np.concatenate([[0], np.cumsum(devices)])[start],
        ask_sum=np.concatenate([[0.0], np.cumsum(np.repeat(price, devices))]),
        level_start=level_start, level_asks=level_asks,
    )  # fmt: skip
    classes = Classes(
        performance=offers.performance, memory_gb=offers.memory_gb,
        kg_per_device_hour=offers.power_w * offers.carbon_g_per_kwh / 1e6, region=offers.region,
    )  # fmt: skip
    gangs = Gangs(jobs.devices, per_node, np.searchsorted(size, per_node, side="right") - 1)
    wants = Wants(
        devices=jobs.devices, level=gangs.level, memory_gb=jobs.memory_gb, work=jobs.work, value=jobs.value,
        deadline_h=jobs.deadline_h, delay_cost_per_h=jobs.delay_cost_per_h,
        carbon_price_per_kg=jobs.carbon_price_per_kg, admits=jobs.admits, whole=jobs.whole_gangs(),
    )  # fmt: skip
    return Market(order=order, stock=stock, first_ask=first_ask, classes=classes, wants=wants, gangs=gangs)


def _level_sums(devices: Ints, price: Floats, kind: Ints, size: Ints, capacity: Ints) -> tuple[Ints, Floats]:
    """`level_start` and `level_asks` of a Stock."""
    starts, sums, begin = np.zeros(capacity.T.shape, np.int64), [], 0
    for m, each in enumerate(size):
        whole = devices // each * each
        first = np.concatenate([[0], np.cumsum(capacity[:, m])])[:-1]
        asks, theirs = np.repeat(price, whole), np.repeat(kind, whole)
        total = np.concatenate([[0.0], np.cumsum(asks)])
        starts[m] = begin + first + np.arange(len(first))
        found = np.zeros(len(asks) + len(first))
        found[np.arange(len(asks)) + theirs + 1] = total[1:] - total[first][theirs]
        sums.append(found)
        begin += len(found)
    return starts, np.concatenate(sums)


def fits_of(market: Market) -> Fits:
    """Which jobs fit which classes, where that can be worth anything."""
    wants, performance = market.wants, market.classes.performance
    hours = wants.work / np.maximum(1, wants.devices)
    sane = np.log(hours[hours > LEAST_HOURS])
    faster = np.log(performance)
    lowest = float(sane.min(initial=0.0) - faster.max(initial=0.0)) if len(sane) else 0.0
    highest = float(sane.max(initial=0.0) - faster.min(initial=0.0)) if len(sane) else 1.0
    scale = kernels.BINS / max(1e-9, (highest - lowest) * (1 + 1e-9))
    start, kind, worth_, hours, bins, hope = kernels.find_edges(
        wants, market.classes, market.stock.capacity, market.first_ask, lowest, scale
    )
    steps = np.exp(lowest + np.arange(kernels.BINS) / scale)
    steps[0] = 0.0
    return Fits(edges=Edges(start, kind, worth_, hours), bins=bins, steps=steps, hope=hope)


def usual_epsilon(jobs: Jobs, offers: Offers) -> float:
    """The least step of a bid, in money per device, where none is asked for."""
    return _usual_epsilon(fits_of(market_of(jobs, offers)))


def _usual_epsilon(fits: Fits) -> float:
    hopeful = fits.hope[fits.hope > 0]
    return max(LEAST_EPSILON, EPSILON * float(np.median(hopeful))) if len(hopeful) else 1.0


def _few(values: Ints) -> Ints:
    """The values that occur, or LEVELS_MAX spread over them where they are more."""
    found = np.unique(np.maximum(1, values))
    if len(found) > LEVELS_MAX:
        found = found[np.linspace(0, len(found) - 1, LEVELS_MAX).astype(int)]
    few: Ints = found
    return few


def _premium(guess: Floats, edges: Edges, won: Ints, jobs: Jobs, offers: Offers) -> Floats:
    """What a device of each class would have been worth to the best job that stayed outside; 0: to nobody."""
    job = np.repeat(np.arange(jobs.count), np.diff(edges.start))
    outside = np.flatnonzero((won[job] < 0) & (guess > 0))
    premium = np.zeros(offers.classes)
    np.maximum.at(premium, edges.kind[outside], guess[outside] / jobs.devices[job[outside]])
    return premium


def _priced(rows: Ints, jobs: Jobs, offers: Offers, market: Market, premium: Floats) -> Plan:
    """The plan with its prices: ask and premium per device-hour, together within the job's bid."""
    job, place, devices = rows[:, 0], rows[:, 1], rows[:, 2]
    offer = market.order[place]
    merged, at = np.unique(job * offers.count + offer, return_inverse=True)
    count = np.bincount(at, devices, minlength=len(merged)).astype(np.int64)
    job, offer = np.divmod(merged, max(1, offers.count))
    kind = offers.kind[offer]
    hours = runtime_h(jobs, offers, job, kind)
    asked = np.zeros(jobs.count)
    np.add.at(asked, job, count * hours * offers.price[offer])
    room = (worth(jobs, offers, job, kind) - asked[job]) / jobs.devices[job]
    # A match that is worth less than its asks would be our own fault: nobody may pay beyond the bid.
    assert bool((room >= -1e-9 * (1 + np.abs(asked[job]))).all()), "no match costs more than its bid"
    # A job without work takes no time, and pays for none.
    extra = np.zeros(len(job))
    np.divide(np.minimum(premium[kind], np.maximum(0.0, room)), hours, out=extra, where=hours > 0)
    plan = Plan(job=job, offer=offer, devices=count, pays=offers.price[offer] + extra)
    assert_sound(plan, jobs, offers)
    return plan


def assert_sound(plan: Plan, jobs: Jobs, offers: Offers) -> None:
    """Individual rationality on both sides, whole gangs and nothing sold twice; each is our bug where it
    fails."""
    taken = np.zeros(offers.count, np.int64)
    np.add.at(taken, plan.offer, plan.devices)
    assert bool((taken <= offers.devices).all()), "no offer is oversold"
    got = np.zeros(jobs.count, np.int64)
    np.add.at(got, plan.job, plan.devices)
    assert bool(((got == 0) | (got == jobs.devices)).all()), "gangs are whole"
    kind = offers.kind[plan.offer]
    hours = runtime_h(jobs, offers, plan.job, kind)
    paid = np.zeros(jobs.count)
    np.add.at(paid, plan.job, plan.devices * hours * plan.pays)
    bid = worth(jobs, offers, plan.job, kind)
    assert bool((plan.pays >= offers.price[plan.offer]).all()), "no provider gets less than its ask"
    assert bool((paid[plan.job] <= bid + 1e-6 * (1 + np.abs(bid))).all()), "no renter pays more than its bid"
