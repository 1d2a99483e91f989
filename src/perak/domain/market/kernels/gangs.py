"""Pack gangs onto the offers of a class."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def pack(
    first,
    last,
    jobs,
    at,
    n,
    won,
    hours,
    k,
    per_node,
    level,
    slack,
    table,
    on,
    op,
    by_size,
    free,
    nxt,
    load,
    moved,
    parts,
    cost,
):
    """Give each of ``jobs[at : at + n]`` (longest hours first) the cheapest devices of offers [first, last).

    `cost[job]`: the asks of its devices, infinite where it does not fit. A group that would leave later,
    larger
    ones without a place goes to another offer (`slack`, by level: devices in whole groups beyond what jobs of
    the level and above need). Afterwards offers of one size exchange all that is on them, the most hours to
    the lowest ask (`by_size`: the offers by size, then ask). `parts`: rows (job, offer, devices).
    Returns how many parts there are.
    """
    levels = len(slack)
    for o in range(first, last):
        free[o] = on[o]
        nxt[o] = o + 1
        load[o] = 0.0
        moved[o] = o
    begin, filled = first, 0
    for x in range(at, at + n):
        j = jobs[x]
        g, need, r, m_j = per_node[j], k[j], hours[won[j]], level[j]
        cost[j] = 0.0
        mine = filled
        for guarded in range(2):
            o, before = begin, -1
            while o < last and need > 0:
                f = free[o]
                t = min(f // g * g, need)
                if guarded == 0:
                    while t > 0:
                        fine = True
                        for m in range(levels):
                            change = table[m, f - t] - table[m, f] + (t if m_j >= m else 0)
                            if change < 0 and 0 <= slack[m] < -change:
                                fine = False
                                break
                        if fine:
                            break
                        t -= g
                if t > 0:
                    for m in range(levels):
                        slack[m] += table[m, f - t] - table[m, f] + (t if m_j >= m else 0)
                    free[o] = f - t
                    need -= t
                    load[o] += t * r
                    parts[filled, 0], parts[filled, 1], parts[filled, 2] = j, o, t
                    filled += 1
                if free[o] == 0:
                    if before < 0:
                        begin = nxt[o]
                    else:
                        nxt[before] = nxt[o]
                else:
                    before = o
                o = nxt[o]
            if need == 0:
                break
        if need == 0:
            continue
        cost[j] = np.inf
        for m in range(m_j + 1):
            slack[m] += need
        undone = filled > mine
        while filled > mine:
            filled -= 1
            o, t = parts[filled, 1], parts[filled, 2]
            for m in range(levels):
                slack[m] += table[m, free[o] + t] - table[m, free[o]]
            free[o] += t
            load[o] -= t * r
        if undone:  # Offers that it had filled are linked anew.
            begin = last
            for o in range(last - 1, first - 1, -1):
                if free[o] > 0:
                    nxt[o] = begin
                    begin = o
    x = first
    while x < last:
        y = x  # A run of one size, by ask: sort what is on them by load. It nearly is.
        while y < last and on[by_size[y]] == on[by_size[x]]:
            z = y
            held = by_size[y]
            while z > x and load[nxt[z - 1]] < load[held]:
                nxt[z] = nxt[z - 1]
                z -= 1
            nxt[z] = held
            y += 1
        for z in range(x, y):
            moved[nxt[z]] = by_size[z]
        x = y
    for x in range(filled):
        parts[x, 1] = moved[parts[x, 1]]
        j = parts[x, 0]
        cost[j] += parts[x, 2] * hours[won[j]] * op[parts[x, 1]]
    return filled


@njit(cache=True)
def slack_of(c, jobs, at, n, k, level, capacity, slack):
    """Devices in whole groups of class c beyond what ``jobs[at : at + n]`` need, by level, into `slack`."""
    slack[:] = capacity[c]
    for x in range(at, at + n):
        for m in range(level[jobs[x]] + 1):
            slack[m] -= k[jobs[x]]
