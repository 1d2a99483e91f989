"""Pack gangs onto the offers of a class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.shapes import Gangs, Stock


class Bench(NamedTuple):
    """Where a class is packed: by offer what is free, the next that has something, the hours on it, and where
    these go in the end; by level what is spare; the parts, (job, offer, devices); and by job of the class its
    key, and the place of each in the order of these."""

    free: Ints
    next: Ints
    load: Floats
    moved: Ints
    spare: Ints
    parts: Ints
    key: Floats
    order: Ints


def bench_of(stock: Stock, gangs: Gangs) -> Bench:
    """Room to pack all jobs of a market."""
    groups = 1 + 2 * int((gangs.devices // np.maximum(1, gangs.per_node)).sum())
    offers = len(stock.devices)
    return Bench(
        free=np.empty(offers, np.int64), next=np.empty(offers, np.int64), load=np.empty(offers),
        moved=np.empty(offers, np.int64), spare=np.empty(len(stock.size), np.int64),
        parts=np.empty((groups, 3), np.int64), key=np.empty(1 + len(gangs.devices)),
        order=np.empty(1 + len(gangs.devices), np.int64),
    )  # fmt: skip


@inner()
def pack(c, jobs, hours, n, boost, gangs, stock, bench, cost):
    """Give each of ``jobs[:n]``, of so many hours, the cheapest devices of class c: how many parts.

    Longest hours first, times the `boost` of the job's level. `cost[job]`: the asks of its devices, infinite
    where it does not fit. A group that would leave later, larger ones without a place goes to another offer.
    Afterwards offers of one size exchange all that is on them, the most hours to the lowest ask.
    """
    _in_order(jobs, hours, n, gangs.level, boost, bench)
    first, last = stock.start[c], stock.start[c + 1]
    free, following, load, moved = bench.free, bench.next, bench.load, bench.moved
    spare, parts, k, level = bench.spare, bench.parts, gangs.devices, gangs.level
    on, price = stock.devices, stock.price
    for o in range(first, last):
        free[o] = on[o]
        following[o] = o + 1
        load[o] = 0.0
        moved[o] = o
    for m in range(len(spare)):
        spare[m] = stock.capacity[c, m]
    for x in range(n):
        for m in range(level[jobs[x]] + 1):
            spare[m] -= k[jobs[x]]
    begin, filled = first, np.int64(0)  # Not a literal, which would be compiled for on its own.
    for x in range(n):
        place = bench.order[x]
        j = jobs[place]
        cost[j] = 0.0
        r, need, mine = hours[place], k[j], filled
        for guarded in (True, False):
            if need > 0:
                need, begin, filled = _fill(
                    j, place, need, r, begin, last, filled, guarded, gangs, stock, bench
                )
        if need > 0:
            cost[j] = np.inf
            for m in range(level[j] + 1):
                spare[m] += need
            if filled > mine:
                begin = _undo(mine, filled, r, first, last, stock, bench)
                filled = mine
    _exchange(first, last, stock, bench)
    for x in range(filled):
        place, o = parts[x, 0], moved[parts[x, 1]]
        parts[x, 0], parts[x, 1] = jobs[place], o
        cost[jobs[place]] += parts[x, 2] * hours[place] * price[o]
    return filled


@inner()
def _in_order(jobs, hours, n, level, boost, bench):
    """The places of the jobs as they are packed."""
    key, order = bench.key, bench.order
    for x in range(n):
        h, z = hours[x] * boost[level[jobs[x]]], x
        while z > 0 and key[z - 1] < h:
            key[z], order[z] = key[z - 1], order[z - 1]
            z -= 1
        key[z], order[z] = h, x


@inner()
def _fill(j, place, need, r, begin, last, filled, guarded, gangs, stock, bench):
    """Give job j, of the place, devices of the offers from `begin` on: (what it still needs, begin, filled).

    Where `guarded`, no group goes where it would leave larger ones without a place.
    """
    free, following, load = bench.free, bench.next, bench.load
    spare, parts, table = bench.spare, bench.parts, stock.table
    g, m_j, levels = gangs.per_node[j], gangs.level[j], len(spare)
    o, before = begin, -1
    while o < last and need > 0:
        f = free[o]
        t = min(f // g * g, need)
        while guarded and t > 0:
            fine = True
            for m in range(levels):
                change = table[m, f - t] - table[m, f] + (t if m_j >= m else 0)
                if change < 0 and 0 <= spare[m] < -change:
                    fine = False
                    break
            if fine:
                break
            t -= g
        if t > 0:
            for m in range(levels):
                spare[m] += table[m, f - t] - table[m, f] + (t if m_j >= m else 0)
            free[o] = f - t
            need -= t
            load[o] += t * r
            parts[filled, 0], parts[filled, 1], parts[filled, 2] = place, o, t
            filled += 1
        if free[o] == 0:
            if before < 0:
                begin = following[o]
            else:
                following[before] = following[o]
        else:
            before = o
        o = following[o]
    return need, begin, filled


@inner()
def _undo(mine, filled, r, first, last, stock, bench):
    """Take back the parts from `mine` on, and link the offers that have something free anew: the first."""
    for x in range(filled - 1, mine - 1, -1):
        o, t = bench.parts[x, 1], bench.parts[x, 2]
        for m in range(len(bench.spare)):
            bench.spare[m] += stock.table[m, bench.free[o] + t] - stock.table[m, bench.free[o]]
        bench.free[o] += t
        bench.load[o] -= t * r
    begin = last
    for o in range(last - 1, first - 1, -1):
        if bench.free[o] > 0:
            bench.next[o] = begin
            begin = o
    return begin


@inner()
def _exchange(first, last, stock, bench):
    """Let offers of one size exchange all that is on them: the most hours to the lowest ask, in `moved`."""
    following, load, moved, on, by_size = bench.next, bench.load, bench.moved, stock.devices, stock.by_size
    x = first
    while x < last:
        y = x  # A run of one size, by ask: sort what is on them by load. It nearly is.
        while y < last and on[by_size[y]] == on[by_size[x]]:
            z = y
            held = by_size[y]
            while z > x and load[following[z - 1]] < load[held]:
                following[z] = following[z - 1]
                z -= 1
            following[z] = held
            y += 1
        for z in range(x, y):
            moved[following[z]] = by_size[z]
        x = y
