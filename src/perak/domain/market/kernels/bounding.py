"""The Lagrangian dual of a market's capacities."""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.compiling import inner, making
from perak.domain.market.kernels.shapes import Edges


@njit(cache=True)
def dual(edges, gangs, stock, lam, take, net):
    """The Lagrangian dual at prices `lam` of a device of each offer: an upper bound on any plan's welfare.

    A job's devices come from as many offers of a class as it needs, in whole groups. `take[offer]` is filled
    with the devices that jobs would take at these prices; `net`, by edge unless it is empty, with what the
    job would gain there if one offer had all its devices.
    """
    bound = 0.0
    for o in range(len(lam)):
        bound += lam[o] * stock.devices[o]
        take[o] = 0.0
    hull, first, last = _hulls(stock, lam)
    most = 1
    for j in range(len(gangs.devices)):
        most = max(most, edges.start[j + 1] - edges.start[j])
    gain = np.empty(most)
    n = 1 + len(lam)
    found, trial = np.empty(n, np.int64), np.empty(n, np.int64)
    key = np.empty(n)
    start, kind, worth, hours = edges
    devices, level, price = gangs.devices, gangs.level, stock.price
    for j in range(len(devices)):
        envelope, m = hull[level[j]], level[j]
        for e in range(start[j], start[j + 1]):
            c, alone = kind[e], -np.inf
            if last[c, m] > first[c, m]:
                o = _alone(hours[e], first[c, m], last[c, m] - 1, envelope, price, lam)
                alone = worth[e] - devices[j] * (hours[e] * price[o] + lam[o])
            gain[e - start[j]] = alone
            if len(net):
                net[e] = alone
        best, parts = 0.0, 0
        while True:  # Those whose gain can still be the best, with all their offers.
            top, chosen = best, -1
            for x in range(start[j + 1] - start[j]):
                if gain[x] > top:
                    top, chosen = gain[x], x
            if chosen < 0:
                break
            gain[chosen] = -np.inf
            e = start[j] + chosen
            cost, used = _together(j, e, edges, gangs, stock, lam, trial, key)
            if worth[e] - cost > best:
                best, parts = worth[e] - cost, used
                found, trial = trial, found
        bound += best
        need = gangs.devices[j]
        for x in range(parts):
            t = min(need, stock.devices[found[x]] // gangs.per_node[j] * gangs.per_node[j])
            take[found[x]] += t
            need -= t
    return bound


@making()
def _hulls(stock, lam):
    """The lower envelope of hours x ask + price over the offers of a class, by level, in the order of asks.

    (offers by level, each class's first by level, the one after its last).
    """
    classes, levels = stock.capacity.shape
    hull = np.empty((levels, len(lam)), np.int32)
    first, last = np.empty((classes, levels), np.int64), np.empty((classes, levels), np.int64)
    op, on, size = stock.price, stock.devices, stock.size
    for c in range(classes):
        for m in range(levels):
            begin = top = stock.start[c]
            for o in range(stock.start[c], stock.start[c + 1]):
                # Lines of greater ask are of use only where their price is lower.
                if on[o] < size[m] or (top > begin and lam[o] >= lam[hull[m, top - 1]]):
                    continue
                while top > begin:
                    a = hull[m, top - 1]
                    if op[o] > op[a]:
                        if top - begin < 2:
                            break
                        b = hull[m, top - 2]
                        # a is above where b meets o.
                        if (lam[a] - lam[o]) * (op[a] - op[b]) < (lam[b] - lam[a]) * (op[o] - op[a]):
                            break
                    top -= 1
                hull[m, top] = o
                top += 1
            first[c, m], last[c, m] = begin, top
    return hull, first, last


@inner(inline="always")
def _alone(r, low, high, hull, price, lam):
    """The offer that a device is cheapest at for r hours, among ``hull[low : high + 1]``."""
    while low < high:  # The longer the hours, the lower the ask of the line below all others.
        middle = (low + high) // 2
        a, b = hull[middle], hull[middle + 1]
        if r * price[a] + lam[a] <= r * price[b] + lam[b]:
            high = middle
        else:
            low = middle + 1
    return hull[low]


@inner()
def _together(j, e, edges, gangs, stock, lam, chosen, key):
    """(the least cost of job j's devices at edge e, how many offers they are of, in `chosen`); no offer gives
    more than it has in whole groups."""
    k, g, c, r = gangs.devices[j], gangs.per_node[j], edges.kind[e], edges.hours[e]
    on, price = stock.devices, stock.price
    n, total = 0, 0
    for o in range(stock.start[c], stock.start[c + 1]):
        most = on[o] // g * g
        ask = r * price[o]
        if total >= k and ask >= key[n - 1]:
            break
        if most == 0 or (total >= k and ask + lam[o] >= key[n - 1]):
            continue
        x = n
        while x > 0 and key[x - 1] > ask + lam[o]:
            chosen[x], key[x] = chosen[x - 1], key[x - 1]
            x -= 1
        chosen[x], key[x] = o, ask + lam[o]
        n += 1
        total += most
        while total - on[chosen[n - 1]] // g * g >= k:
            total -= on[chosen[n - 1]] // g * g
            n -= 1
    if total < k:
        return np.inf, 0
    cost, need = 0.0, k
    for x in range(n):
        t = min(need, on[chosen[x]] // g * g)
        cost += t * key[x]
        need -= t
    return cost, n


@njit(cache=True)
def nearest(edges, net, keep):
    """The `keep` edges of each job with the highest `net`."""
    jobs = len(edges.start) - 1
    start = np.zeros(jobs + 1, np.int64)
    for j in range(jobs):
        start[j + 1] = start[j] + min(keep, edges.start[j + 1] - edges.start[j])
    kind, worth, hours = np.empty(start[jobs], np.int32), np.empty(start[jobs]), np.empty(start[jobs])
    for j in range(jobs):
        order = np.argsort(-net[edges.start[j] : edges.start[j + 1]])
        for x in range(start[j + 1] - start[j]):
            e = edges.start[j] + order[x]
            kind[start[j] + x], worth[start[j] + x], hours[start[j] + x] = (
                edges.kind[e],
                edges.worth[e],
                edges.hours[e],
            )
    return Edges(start, kind, worth, hours)
