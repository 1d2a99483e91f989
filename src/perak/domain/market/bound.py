"""An upper bound on what any plan could be worth: the Lagrangian dual of a market's capacities.

For any prices of devices that are not negative, what jobs would gain at these prices and what the devices
would fetch is together at least the welfare of every plan (weak duality), so a bound is valid however it
was found. Incremental subgradient steps lower it (Nedic and Bertsekas 2001): a few of the jobs at a time
choose at today's prices, and prices move before the next do; all at once, they herd to the same offers.
"""

from __future__ import annotations

import numpy as np

from perak.domain.market import kernels
from perak.domain.market.auction import Market, fits_of, market_of
from perak.domain.market.clearing import Floats, Ints, Jobs, Offers, Plan, welfare
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock

ROUNDS_MAX = 40
PASSES = 4
"""Times that a round lets every job choose among its NEAR best edges; after it all edges are looked at, which
makes a bound."""
NEAR = 24
EDGES_FEW = 200_000
"""Up to here all edges are looked at in every pass."""
BATCHES = 20
"""Parts of the jobs that choose one after the other."""
BATCH_LEAST = 50
"""Jobs of a part, where there are as many."""
STEP = 0.15
"""By how much an offer's price rises in the first round for a device too many, in mean prices of a device."""
ENOUGH, SHORTER = 0.02, 0.7
"""Steps are shorter by this factor after a round that took less than this share of the gap to the plan."""
SPAN = 4
"""Offers of so many devices take steps as they are; others are scaled by the root of their devices."""


def upper_bound(jobs: Jobs, offers: Offers, plan: Plan, *, rounds_max: int = ROUNDS_MAX) -> float:
    """A bound on the welfare of every plan, started from the prices that `plan` suggests."""
    market = market_of(jobs, offers)
    edges, gangs, stock = fits_of(market).edges, market.gangs, market.stock
    if not len(edges.kind):
        return 0.0
    reached = welfare(plan, jobs, offers)
    net, none, take = np.empty(len(edges.kind)), np.empty(0), np.zeros(offers.count)

    def value(prices: Floats) -> float:
        return float(kernels.dual(edges, gangs, stock, prices, take, none))

    best, prices = min(
        ((value(prices), prices) for prices in _suggested(jobs, offers, plan, market, edges)),
        key=lambda pair: pair[0],
    )
    devices = int(stock.devices.sum())
    step = STEP * (float(stock.devices @ prices) or best) / devices
    keep = len(edges.kind) if len(edges.kind) <= EDGES_FEW else NEAR
    draw = np.random.default_rng(1)
    for _ in range(rounds_max):
        if best <= reached * (1 + 1e-6):
            break
        kernels.dual(edges, gangs, stock, prices, take, net)
        near = kernels.nearest(edges, net, keep)
        mean, prices = _descend(near, gangs, stock, prices, step, draw)
        of_mean, of_last = value(mean), value(prices)
        if of_mean < of_last:
            prices = mean
        lower = min(of_mean, of_last)
        if best - lower < ENOUGH * (best - reached):
            step *= SHORTER
        best = min(best, lower)
    return max(best, reached)


def _descend(
    edges: Edges, gangs: Gangs, stock: Stock, prices: Floats, step: float, draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """A round on a part of the edges: the mean of all prices that there were, and the last.

    Jobs choose in parts drawn at random; after each, prices rise where its jobs took more than the part's
    share of the devices, and fall where they took less.
    """
    jobs = len(gangs.devices)
    batches = max(1, min(BATCHES, jobs // BATCH_LEAST))
    parts = [_only(edges, gangs, chosen) for chosen in np.array_split(draw.permutation(jobs), batches)]
    steps = step * np.sqrt(SPAN / np.maximum(1, stock.devices))
    share, take, none = stock.devices / batches, np.zeros(len(prices)), np.empty(0)
    total = np.zeros(len(prices))
    for _ in range(PASSES):
        for some, theirs in parts:
            kernels.dual(some, theirs, stock, prices, take, none)
            prices = np.maximum(0.0, prices + steps * (take - share))
            total += prices
    return total / (PASSES * batches), prices


def _only(edges: Edges, gangs: Gangs, chosen: Ints) -> tuple[Edges, Gangs]:
    """The edges and shapes of the chosen jobs."""
    count = np.diff(edges.start)[chosen]
    start = np.concatenate([[0], np.cumsum(count)])
    at = np.repeat(edges.start[:-1][chosen] - start[:-1], count) + np.arange(start[-1])
    return (
        Edges(start, edges.kind[at], edges.worth[at], edges.hours[at]),
        Gangs(gangs.devices[chosen], gangs.per_node[chosen], gangs.level[chosen]),
    )


def _suggested(jobs: Jobs, offers: Offers, plan: Plan, market: Market, edges: Edges) -> list[Floats]:
    """Prices to start from: what the plan's staircases make a device worth, at several levels of scarcity."""
    index, level = market.stock, market.gangs.level
    kind = offers.kind[plan.offer]
    hours = jobs.work[plan.job] / (jobs.devices[plan.job] * offers.performance[kind])
    stairs = np.zeros(offers.count)
    for c in range(offers.classes):
        mine = np.flatnonzero(kind == c)
        if not len(mine):
            continue
        first, last = index.start[c], index.start[c + 1]
        order = mine[np.argsort(hours[mine])]
        # From the shortest hours on: the ask of the device that a job of these hours would be at.
        below = np.cumsum(plan.devices[order])
        rank = below[-1] - below
        asks = np.repeat(index.price[first:last], index.devices[first:last])
        asks = asks[np.minimum(rank, len(asks) - 1)]
        r = np.concatenate([[0.0], hours[order]])
        stair = np.concatenate([[0.0], np.cumsum(asks * np.diff(r))])
        stairs[first:last] = np.maximum(
            0.0, (stair[None, :] - index.price[first:last, None] * r[None, :]).max(axis=1)
        )
    # Where a class is full, a job outside would still pay this much for a device.
    outside = np.ones(jobs.count, bool)
    outside[plan.job] = False
    job = np.repeat(np.arange(jobs.count), np.diff(edges.start))
    full = np.zeros(index.capacity.shape[0])
    used = np.bincount(kind, plan.devices, minlength=offers.classes)
    hope = np.where(
        outside[job],
        edges.worth - jobs.devices[job] * edges.hours * market.first_ask[edges.kind, level[job]],
        0,
    )
    np.maximum.at(full, edges.kind, hope / jobs.devices[job])
    full[used < 0.97 * index.capacity[:, 0]] = 0.0
    scarce = np.repeat(full, np.diff(index.start))
    return [stairs + share * scarce for share in (0.0, 0.15, 0.4, 1.0)]
