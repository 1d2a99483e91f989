"""The instant match, job by job."""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.edges import worth_of


@njit(cache=True)
def instant(wants, gangs, classes, stock):
    """Each job in turn to the class where it is best off, there to the cheapest fitting asks: rows.

    Rows are (job, offer, devices).
    """
    (count, levels), jobs = stock.capacity.shape, len(wants.devices)
    free, capacity = stock.devices.copy(), stock.capacity.copy()
    # The first offer of a class with room for a group of a level; it only moves on, as nothing is given back.
    first = np.empty((count, levels), np.int64)
    groups = 1
    for c in range(count):
        first[c] = stock.start[c]
    for j in range(jobs):
        groups += wants.devices[j] // max(1, gangs.per_node[j])
    rows, trial = np.empty((groups, 3), np.int64), np.empty((groups, 2), np.int64)
    k, level, memory, work, value, deadline, delay, carbon, admits, whole = wants
    table = stock.table
    performance, has_memory, kg, region = classes
    n = 0
    for j in range(jobs):
        if not whole[j]:
            continue
        best, taken, chosen = 0.0, 0, 0
        for c in range(count):
            if not admits[j, region[c]] or memory[j] > has_memory[c] or k[j] > capacity[c, level[j]]:
                continue
            r = work[j] / (k[j] * performance[c])
            if r > deadline[j]:
                continue
            v = worth_of(value[j], r, delay[j], carbon[j], k[j] * kg[c])
            net, parts = _cheapest(j, c, r, v, best, free, first, gangs, stock, trial)
            if net > best:
                best, taken, chosen = net, parts, c
                for x in range(parts):
                    rows[n + x, 0], rows[n + x, 1], rows[n + x, 2] = j, trial[x, 0], trial[x, 1]
        for x in range(n, n + taken):
            o, t = rows[x, 1], rows[x, 2]
            for m in range(levels):
                capacity[chosen, m] += table[m, free[o] - t] - table[m, free[o]]
            free[o] -= t
        n += taken
    return rows[:n]


@inner()
def _cheapest(j, c, r, v, best, free, first, gangs, stock, trial):
    """(what job j gains at the cheapest fitting asks of class c, how many parts it has there, in `trial`).

    Minus infinity where that is not above `best`.
    """
    k, g, m, price, size = gangs.devices[j], gangs.per_node[j], gangs.level[j], stock.price, stock.size
    o, last = first[c, m], stock.start[c + 1]
    while o < last and free[o] < size[m]:
        o += 1
    first[c, m] = o
    if o == last or v - k * r * price[o] <= best:
        return -np.inf, 0
    need, net, parts = k, v, 0
    while o < last and need > 0 and v - r * (k - need) * price[o] > best:
        t = min(free[o] // g * g, need)
        if t > 0:
            net -= t * r * price[o]
            need -= t
            trial[parts, 0], trial[parts, 1] = o, t
            parts += 1
        o += 1
    return (net if need == 0 else -np.inf), parts
