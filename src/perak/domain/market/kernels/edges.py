"""Which jobs fit which classes, and what a class can give. An *edge* is a job on a class that fits it."""

from __future__ import annotations

import numpy as np
from numba import njit

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


@njit(cache=True)
def find_edges(
    k,
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
    capacity,
    first_ask,
    log_hours,
    log_performance,
    lowest,
    scale,
):
    """Edges that could be worth something, by job: (start, class, worth, hours, bin of hours, hope of each
    job).

    A job's hope is the most that a device could be worth to it, at the lowest asks. Bins are even in the
    logarithm
    of hours from `lowest` on, `scale` of them to a unit.
    """
    jobs, classes = len(k), len(performance)
    start = np.zeros(jobs + 1, np.int64)
    room = max(1024, jobs * 32)
    kind, bins = np.empty(room, np.int32), np.empty(room, np.int32)
    worth, hours = np.empty(room), np.empty(room)
    hope = np.zeros(jobs)
    faster = 1.0 / performance
    n = 0
    for j in range(jobs):
        if whole[j]:
            if n + classes > len(kind):
                room = max(2 * len(kind), n + classes)
                kind, bins = _longer(kind, room), _longer(bins, room)
                worth, hours = _longer(worth, room), _longer(hours, room)
            m, k_j, memory_j, most = level[j], k[j], memory[j], deadline[j]
            each, carbon = work[j] / k_j, carbon_price[j] * k_j
            best = 0.0
            for c in range(classes):
                if not admits[j, region[c]] or memory_j > has_memory[c] or k_j > capacity[c, m]:
                    continue
                r = each * faster[c]
                if r > most:
                    continue
                v = value[j] - r * (delay[j] + carbon * kg_per_device_hour[c])
                left = v - k_j * r * first_ask[c, m]
                if left > 0.0:
                    kind[n], worth[n], hours[n] = c, v, r
                    bins[n] = min(BINS - 1, max(0, int((log_hours[j] - log_performance[c] - lowest) * scale)))
                    best = max(best, left)
                    n += 1
            hope[j] = best / k_j
        start[j + 1] = n
    return start, kind[:n].copy(), worth[:n].copy(), hours[:n].copy(), bins[:n].copy(), hope


@njit(cache=True)
def _longer(array, room):
    longer = np.empty(room, array.dtype)
    longer[: len(array)] = array
    return longer
