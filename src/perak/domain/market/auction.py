"""Clear a market: an instant match of each job in turn, or a gang auction over all of them.

The auction has three steps, all on one core. Edges: which jobs fit which classes, and what each would be
worth there. Bids: an auction in the manner of Bertsekas (1988) at the level of classes, whose price is that
of a device; a better bid displaces the cheapest set of winners, whole gangs only, and what devices cost
follows
a staircase of asks, the cheapest to those who use them longest. Packing and search: gangs get offers in whole
groups, and ruin and recreate improves the plan by what it is truly worth.

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
    Flags,
    Floats,
    Ints,
    Jobs,
    Offers,
    Plan,
    runtime_h,
    worth,
)

SWEEPS = 2
"""After the first bids everyone may bid again this often; more gain little."""
EPSILON = 0.01
"""Bids rise by at least this share of what a device is worth to the median job."""
BIASES = (0.0, 0.15, 0.3, 0.6, 1.0)
"""Powers of a group's size by which it may be packed before others: the search finds what suits a class."""
SEARCH_MAX = 60_000
SEARCH_WORK = 12_000_000
"""Trials of the search: this many job-offer pairs' worth, as one costs about as much as its class is
large; the
half second that a clearing should take is mostly theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Offers by class and ask, ready for matching: sizes of groups, capacities, and who may use what."""

    order: Ints
    """The offers' places in the caller's arrays."""
    devices: Ints
    price: Floats
    start: Ints
    """Each class's first offer."""
    by_size: Ints
    size: Ints
    table: Ints
    """[level, n]: devices in whole groups among n."""
    capacity: Ints
    first_ask: Floats
    kg_per_device_hour: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Jobs on the classes that fit them, by job."""

    start: Ints
    kind: Ints
    worth: Floats
    hours: Floats
    bins: Ints
    """Of hours: rows of `steps`."""
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
    index = index_of(jobs, offers)
    rows, _ = kernels.instant(
        jobs.devices, np.maximum(1, jobs.per_node), levels_of(jobs, index), *_facts(jobs), jobs.whole_gangs(),
        offers.performance, offers.memory_gb, index.kg_per_device_hour, offers.region, index.size,
        index.table,
        index.devices, index.price, index.start, index.capacity.copy(),
    )  # fmt: skip
    return Cleared(
        plan=_priced(rows, jobs, offers, index, np.zeros(offers.classes)), premium=np.zeros(offers.classes)
    )


def auction(jobs: Jobs, offers: Offers, *, epsilon: float | None = None, seed: int = 1) -> Cleared:
    """Match all jobs together. `epsilon`: the least step of a bid, in money per device; None: EPSILON.

    The same `seed` gives the same plan.
    """
    index = index_of(jobs, offers)
    level = levels_of(jobs, index)
    edges = edges_of(jobs, offers, index, level)
    if not len(edges.kind):
        empty = _priced(np.zeros((0, 3), np.int64), jobs, offers, index, np.zeros(offers.classes))
        return Cleared(plan=empty, premium=np.zeros(offers.classes))
    order = np.argsort(-edges.hope, kind="stable")[: int((edges.hope > 0).sum())]
    if epsilon is None:
        epsilon = EPSILON * float(np.median(edges.hope[order]))
    before = np.concatenate([[0], np.cumsum(index.devices)])
    device_start = before[index.start]
    member_start = device_start + np.arange(len(device_start))
    ask_sum = np.concatenate([[0.0], np.cumsum(np.repeat(index.price, index.devices))])
    gangs = _few(jobs.devices)
    gang = np.abs(jobs.devices[:, None] - gangs[None, :]).argmin(axis=1)
    won, _, stair, slope, bids = kernels.auction(
        edges.start, edges.kind, edges.worth, edges.hours, edges.bins, jobs.devices, level, gang, gangs,
        order,
        index.capacity, device_start, member_start, ask_sum, edges.steps, epsilon, SWEEPS,
    )  # fmt: skip
    guess = kernels.guesses(
        edges.start,
        edges.kind,
        edges.worth,
        edges.hours,
        edges.bins,
        jobs.devices,
        gang,
        stair,
        slope,
        edges.steps,
    )
    pairs = 1 + offers.count * jobs.count // max(1, offers.classes) ** 2
    trials_max = min(SEARCH_MAX, SEARCH_WORK // (pairs + 600))
    boost = index.size.astype(np.float64)[None, :] ** np.array(BIASES)[:, None]
    rows, _, trials, _ = kernels.search(
        edges.start, edges.kind, edges.worth, edges.hours, guess, jobs.devices, jobs.per_node, level,
        index.table,
        index.devices, index.price, index.by_size, index.start, member_start, index.capacity, won, boost,
        trials_max,
        seed,
    )  # fmt: skip
    premium = _premium(guess, edges, won, jobs, offers)
    return Cleared(
        plan=_priced(rows, jobs, offers, index, premium), premium=premium, bids=int(bids), trials=int(trials)
    )


def index_of(jobs: Jobs, offers: Offers) -> Index:
    """The offers by class and ask, for the sizes of groups that these jobs have."""
    order = np.lexsort((offers.price, offers.kind))
    kind, devices, price = offers.kind[order], offers.devices[order], offers.price[order]
    start = np.searchsorted(kind, np.arange(offers.classes + 1)).astype(np.int64)
    sizes = _few(jobs.per_node) if jobs.count else np.ones(1, np.int64)
    whole = np.arange(int(devices.max(initial=0)) + 1)
    capacity = np.zeros((offers.classes, len(sizes)), np.int64)
    first_ask = np.zeros((offers.classes, len(sizes)))
    kernels.class_capacity(start, sizes, devices, price, capacity, first_ask)
    return Index(
        order=order,
        devices=devices,
        price=price,
        start=start,
        by_size=np.lexsort((price, devices, kind)),
        size=sizes,
        table=np.array([whole // size * size for size in sizes]),
        capacity=capacity,
        first_ask=first_ask,
        kg_per_device_hour=offers.power_w * offers.carbon_g_per_kwh / 1e6,
    )


def levels_of(jobs: Jobs, index: Index) -> Ints:
    """Each job's row of `index.size`."""
    levels: Ints = np.searchsorted(index.size, np.maximum(1, jobs.per_node), side="right") - 1
    return levels


def edges_of(jobs: Jobs, offers: Offers, index: Index, level: Ints) -> Edges:
    """Which jobs fit which classes, where that can be worth anything."""
    with np.errstate(divide="ignore"):
        log_hours = np.log(np.maximum(jobs.work / np.maximum(1, jobs.devices), 1e-300))
    log_performance = np.log(offers.performance)
    sane = log_hours[log_hours > -600]
    lowest = float(sane.min(initial=0.0) - log_performance.max(initial=0.0)) if len(sane) else 0.0
    highest = float(sane.max(initial=0.0) - log_performance.min(initial=0.0)) if len(sane) else 1.0
    scale = kernels.BINS / max(1e-9, (highest - lowest) * (1 + 1e-9))
    start, kind, worth_, hours, bins, hope = kernels.find_edges(
        jobs.devices, level, *_facts(jobs), jobs.whole_gangs(), offers.performance, offers.memory_gb,
        index.kg_per_device_hour, offers.region, index.capacity, index.first_ask, log_hours,
        log_performance, lowest,
        scale,
    )  # fmt: skip
    steps = np.exp(lowest + np.arange(kernels.BINS) / scale)
    steps[0] = 0.0
    return Edges(start=start, kind=kind, worth=worth_, hours=hours, bins=bins, steps=steps, hope=hope)


def _few(values: Ints) -> Ints:
    """The values that occur, or LEVELS_MAX spread over them where they are more."""
    found = np.unique(np.maximum(1, values))
    if len(found) > LEVELS_MAX:
        found = found[np.linspace(0, len(found) - 1, LEVELS_MAX).astype(int)]
    few: Ints = found
    return few


def _facts(jobs: Jobs) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Flags]:
    return (
        jobs.memory_gb,
        jobs.work,
        jobs.value,
        jobs.deadline_h,
        jobs.delay_cost_per_h,
        jobs.carbon_price_per_kg,
        jobs.admits,
    )


def _premium(guess: Floats, edges: Edges, won: Ints, jobs: Jobs, offers: Offers) -> Floats:
    """What a device of each class would have been worth to the best job that stayed outside; 0: to nobody."""
    job = np.repeat(np.arange(jobs.count), np.diff(edges.start))
    outside = np.flatnonzero((won[job] < 0) & (guess > 0))
    premium = np.zeros(offers.classes)
    np.maximum.at(premium, edges.kind[outside], guess[outside] / jobs.devices[job[outside]])
    return premium


def _priced(rows: Ints, jobs: Jobs, offers: Offers, index: Index, premium: Floats) -> Plan:
    """The plan with its prices: ask and premium per device-hour, together within the job's bid."""
    job, place, devices = rows[:, 0], rows[:, 1], rows[:, 2]
    offer = index.order[place]
    merged, at = np.unique(np.stack([job, offer], axis=1), axis=0, return_inverse=True)
    count = np.zeros(len(merged), np.int64)
    np.add.at(count, at.ravel(), devices)
    job, offer = merged[:, 0], merged[:, 1]
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
