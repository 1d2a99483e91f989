"""Which jobs fit which classes, and what a class can give."""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.compiling import inner, making

BINS = 48
"""Steps of a staircase, over the logarithm of hours."""


@njit(cache=True)
def class_capacity(offer_start, size, on, op, capacity, first_ask):
    """Fill devices that a class can give in groups of each level, and the lowest ask of a fitting offer."""
    for c in range(len(offer_start) - 1):
        for m in range(len(size)):
            first_ask[c, m] = np.inf
        for o in range(offer_start[c], offer_start[c + 1]):
            for m in range(len(size)):
                if on[o] >= size[m]:
                    capacity[c, m] += on[o] // size[m] * size[m]
                    first_ask[c, m] = min(first_ask[c, m], op[o])


@inner()
def worth_of(value, hours, delay_cost, carbon_price, kg):
    """What a job is worth after so many hours: its value less delay and carbon, `kg` an hour."""
    return value - hours * (delay_cost + carbon_price * kg)


@njit(cache=True)
def find_edges(wants, classes, capacity, first_ask, lowest, scale):
    """Edges that could be worth something, by job: (start, class, worth, hours, bin, hope of each job).

    A job's hope is the most that a device could be worth to it, at the lowest asks. Bins are even in the
    logarithm of hours from `lowest` on, `scale` of them to a unit.
    """
    jobs, count = len(wants.devices), len(classes.performance)
    start = np.zeros(jobs + 1, np.int64)
    room = max(1024, jobs * 32)
    kind, bins = np.empty(room, np.int32), np.empty(room, np.int32)
    worth, hours = np.empty(room), np.empty(room)
    hope = np.zeros(jobs)
    # What a named group of arrays gives out is counted each time, so that loops use names of their own.
    devices, level, memory, work, value, deadline, delay, carbon, admits, whole = wants
    performance, has_memory, kg, region = classes
    faster, n = np.log(performance), 0
    for j in range(jobs):
        if whole[j]:
            if n + count > len(kind):
                room = max(2 * len(kind), n + count)
                kind, bins = _longer(kind, room), _longer(bins, room)
                worth, hours = _longer(worth, room), _longer(hours, room)
            k, m, best = devices[j], level[j], 0.0
            long = np.log(max(work[j] / k, 1e-300)) - lowest
            for c in range(count):
                if not admits[j, region[c]] or memory[j] > has_memory[c] or k > capacity[c, m]:
                    continue
                r = work[j] / (k * performance[c])
                if r > deadline[j]:
                    continue
                v = worth_of(value[j], r, delay[j], carbon[j], k * kg[c])
                left = v - k * r * first_ask[c, m]
                if left > 0.0:
                    kind[n], worth[n], hours[n] = c, v, r
                    bins[n] = min(BINS - 1, max(0, int((long - faster[c]) * scale)))
                    best = max(best, left)
                    n += 1
            hope[j] = best / k
        start[j + 1] = n
    return start, kind[:n], worth[:n], hours[:n], bins[:n], hope


@making()
def _longer(array, room):
    longer = np.empty(room, array.dtype)
    for x in range(len(array)):
        longer[x] = array[x]
    return longer
