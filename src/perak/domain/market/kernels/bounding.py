"""The Lagrangian dual of a market's capacities."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def dual(
    start,
    kind,
    worth,
    hours,
    k,
    level,
    size,
    on,
    op,
    offer_start,
    lam,
    take,
    use_take,
    net,
):
    """The Lagrangian dual at prices `lam` of a device of each offer: an upper bound on any plan's welfare.

    `net`, by edge unless it is empty, is filled with what the job would gain there. Where `use_take`,
    `take[offer]` is filled with the devices that jobs would take at these prices.
    """
    classes, levels = len(offer_start) - 1, len(size)
    n = len(on)
    bound = 0.0
    for o in range(n):
        bound += lam[o] * on[o]
        if use_take:
            take[o] = 0.0
    # The lower envelope of hours x ask + price over the offers of a class, by level: offers in ask's order.
    hull = np.empty((levels, n), np.int32)
    first, last = np.empty((classes, levels), np.int64), np.empty((classes, levels), np.int64)
    for c in range(classes):
        for m in range(levels):
            begin = top = offer_start[c]
            for o in range(offer_start[c], offer_start[c + 1]):
                if on[o] < size[m]:
                    continue
                # Lines of greater ask are of use only where their price is lower.
                if top > begin and lam[o] >= lam[hull[m, top - 1]]:
                    continue
                while top - begin >= 1:
                    a = hull[m, top - 1]
                    if op[o] <= op[a]:
                        top -= 1
                        continue
                    if top - begin < 2:
                        break
                    b = hull[m, top - 2]
                    # a is above where b meets o.
                    if (lam[a] - lam[o]) * (op[a] - op[b]) >= (lam[b] - lam[a]) * (op[o] - op[a]):
                        top -= 1
                    else:
                        break
                hull[m, top] = o
                top += 1
            first[c, m], last[c, m] = begin, top
    for j in range(len(k)):
        best, chosen = 0.0, -1
        for e in range(start[j], start[j + 1]):
            c, m, r = kind[e], level[j], hours[e]
            lo, hi = first[c, m], last[c, m] - 1
            if hi < lo:
                if len(net):
                    net[e] = -np.inf
                continue
            while lo < hi:  # The longer the hours, the lower the ask of the line below all others.
                middle = (lo + hi) // 2
                a, b = hull[m, middle], hull[m, middle + 1]
                if r * op[a] + lam[a] <= r * op[b] + lam[b]:
                    hi = middle
                else:
                    lo = middle + 1
            o = hull[m, lo]
            gain = worth[e] - k[j] * (r * op[o] + lam[o])
            if len(net):
                net[e] = gain
            if gain > best:
                best, chosen = gain, o
        if chosen >= 0:
            bound += best
            if use_take:
                take[chosen] += k[j]
    return bound


@njit(cache=True)
def nearest(start, kind, worth, hours, net, keep):
    """The `keep` edges of each job with the highest `net`: (start, class, worth, hours)."""
    jobs = len(start) - 1
    new_start = np.zeros(jobs + 1, np.int64)
    room = 0
    for j in range(jobs):
        room += min(keep, start[j + 1] - start[j])
    new_kind, new_worth, new_hours = np.empty(room, np.int32), np.empty(room), np.empty(room)
    n = 0
    for j in range(jobs):
        mine = net[start[j] : start[j + 1]]
        order = np.argsort(-mine)
        for x in range(min(keep, len(mine))):
            e = start[j] + order[x]
            new_kind[n], new_worth[n], new_hours[n] = kind[e], worth[e], hours[e]
            n += 1
        new_start[j + 1] = n
    return new_start, new_kind, new_worth, new_hours
