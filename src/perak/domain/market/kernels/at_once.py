"""The instant match, job by job."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def instant(
    k,
    per_node,
    level,
    memory,
    work,
    value,
    deadline,
    delay,
    carbon_price,
    admits,
    whole,
    performance,
    has_memory,
    kg_per_device_hour,
    region,
    size,
    table,
    on,
    op,
    offer_start,
    capacity,
):
    """Each job in turn to the class where it is best off, there to the cheapest fitting asks: rows, and
    hours.

    `capacity` (by class and level) is what is free, and is used up; rows are (job, offer, devices).
    """
    jobs, (classes, levels) = len(k), capacity.shape
    free = on.copy()
    # The first offer of a class with room for a group of a level; it only moves on, as nothing is given back.
    first = np.empty((classes, levels), np.int64)
    for c in range(classes):
        first[c] = offer_start[c]
    groups = 0
    for j in range(jobs):
        groups += k[j] // max(1, per_node[j])
    rows = np.empty((groups + 1, 3), np.int64)
    hours = np.zeros(jobs)
    trial = np.empty((groups + 1, 2), np.int64)
    n = 0
    for j in range(jobs):
        if not whole[j]:
            continue
        best, taken, chosen, m = 0.0, 0, 0, level[j]
        for c in range(classes):
            if not admits[j, region[c]] or memory[j] > has_memory[c] or k[j] > capacity[c, m]:
                continue
            r = work[j] / (k[j] * performance[c])
            if r > deadline[j]:
                continue
            v = value[j] - delay[j] * r - carbon_price[j] * k[j] * r * kg_per_device_hour[c]
            o, last = first[c, m], offer_start[c + 1]
            while o < last and free[o] < size[m]:
                o += 1
            first[c, m] = o
            if o == last or v - k[j] * r * op[o] <= best:
                continue
            need, net, parts = k[j], v, 0
            while o < last and need > 0 and v - r * (k[j] - need) * op[o] > best:
                t = min(free[o] // per_node[j] * per_node[j], need)
                if t > 0:
                    net -= t * r * op[o]
                    need -= t
                    trial[parts, 0], trial[parts, 1] = o, t
                    parts += 1
                o += 1
            if need == 0 and net > best:
                best, taken = net, parts
                hours[j] = r
                for x in range(parts):
                    rows[n + x, 0], rows[n + x, 1], rows[n + x, 2] = j, trial[x, 0], trial[x, 1]
                chosen = c
        for x in range(taken):
            o, t = rows[n + x, 1], rows[n + x, 2]
            for higher in range(levels):
                capacity[chosen, higher] += table[higher, free[o] - t] - table[higher, free[o]]
            free[o] -= t
        n += taken
    return rows[:n], hours
