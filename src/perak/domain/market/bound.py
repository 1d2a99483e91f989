"""An upper bound on what any plan could be worth: the Lagrangian dual of a market's capacities.

For any prices of devices that are not negative, what jobs would gain at these prices and what the devices
would fetch is together at least the welfare of every plan (weak duality), so a bound is valid however it
was found.
Subgradient steps with averaged directions (the volume algorithm's, Barahona and Anbil 2000) lower it.
"""

from __future__ import annotations

import numpy as np

from perak.domain.market import kernels
from perak.domain.market.auction import Market, fits_of, market_of
from perak.domain.market.clearing import Floats, Jobs, Offers, Plan, welfare
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock

ROUNDS_MAX = 24
STEPS = 30
"""Steps of a round, with the NEAR best edges of each job; after it all edges are looked at, which makes a
bound."""
NEAR = 24
EDGES_FEW = 200_000
"""Up to here all edges are looked at in every step."""
PATIENCE = 8
"""Steps without a lower value before they are shortened."""
SHORTEST = 1e-3


def upper_bound(jobs: Jobs, offers: Offers, plan: Plan, *, rounds_max: int = ROUNDS_MAX) -> float:
    """A bound on the welfare of every plan, started from the prices that `plan` suggests."""
    market = market_of(jobs, offers)
    edges, gangs, stock = fits_of(market).edges, market.gangs, market.stock
    if not len(edges.kind):
        return 0.0
    reached = welfare(plan, jobs, offers)
    net, none, take = np.empty(len(edges.kind)), np.empty(0), np.zeros(offers.count)
    tried = [
        (float(kernels.dual(edges, gangs, stock, prices, take, none)), prices)
        for prices in _suggested(jobs, offers, plan, market, edges)
    ]
    best, prices = min(tried, key=lambda pair: pair[0])
    length = 1.0
    keep = len(edges.kind) if len(edges.kind) <= EDGES_FEW else NEAR
    for _ in range(rounds_max):
        kernels.dual(edges, gangs, stock, prices, take, net)
        near = kernels.nearest(edges, net, keep)
        lower, length = _descend(near, gangs, stock, prices, length, reached=reached)
        value = float(kernels.dual(edges, gangs, stock, lower, take, none))
        if value < best:
            best, prices = value, lower
        else:
            length *= 0.5  # It went where edges matter that it did not look at.
        if best <= reached * (1 + 1e-6) or length < SHORTEST:
            break
    return max(best, reached)


def _descend(
    edges: Edges, gangs: Gangs, stock: Stock, prices: Floats, length: float, *, reached: float
) -> tuple[Floats, float]:
    """A round of steps on a part of the edges: the best prices of devices, and the length of the next."""
    take, none = np.zeros(len(prices)), np.empty(0)
    now, best, best_prices = prices.copy(), np.inf, prices
    direction, stalled = np.zeros(len(prices)), 0
    for _ in range(STEPS):
        value = float(kernels.dual(edges, gangs, stock, now, take, none))
        if value < best - 1e-7 * abs(best if best < np.inf else 0.0):
            best, best_prices, stalled = value, now.copy(), 0
        else:
            stalled += 1
        if stalled > PATIENCE:
            length, stalled, now = length * 0.7, 0, best_prices.copy()
            direction[:] = 0.0
            value = float(kernels.dual(edges, gangs, stock, now, take, none))
        direction = 0.75 * direction + 0.25 * (stock.devices - take)
        norm = float(direction @ direction)
        if norm == 0.0 or value <= reached or length < SHORTEST:
            break
        now = np.maximum(0.0, now - 0.5 * length * (value - reached) / norm * direction)
    return best_prices, length


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
