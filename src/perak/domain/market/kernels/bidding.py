"""The gang auction: jobs bid for classes, and the cheapest set of winners is displaced.

*Levels* are the sizes of groups,
ascending: a job of level m can use an offer with at least ``size[m]`` devices,
so that capacities are a chain: what jobs of level l and above take must not exceed what offers can give in
groups of
``size[l]``. The *staircase* of a class is what a device costs there by the hours that it is used: the jobs
that run
longest take the cheapest devices.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.edges import BINS


@njit(cache=True)
def auction(
    start,
    kind,
    worth,
    hours,
    bins,
    k,
    level,
    gang,
    gangs,
    order,
    capacity,
    device_start,
    member_start,
    ask_sum,
    steps,
    eps,
    sweeps,
):
    """Bertsekas' auction with gangs, at the level of classes: (edge that each job won or -1, prices,
    staircases, their slopes, bids).

    A job bids for the class where it is best off, up to the difference to its second best and `eps` more, per
    device; where that exceeds what the class can give, the cheapest set of winners is displaced and the price
    of the class rises to what they bid. `order`: the first bids, those of the densest jobs first. In each of
    `sweeps` afterwards whoever is now better off elsewhere, or was left out and need not be, bids again.
    """
    jobs, (classes, levels) = len(k), capacity.shape
    price = np.zeros((classes, levels))
    used = np.zeros((classes, levels), np.int64)
    taken = np.zeros((classes, BINS), np.int64)
    stair, slope = np.zeros((classes, len(gangs), BINS)), np.zeros((classes, len(gangs), BINS))
    for c in range(classes):
        _raise_stairs(c, taken, stair, slope, steps, device_start, ask_sum, gangs)
    won = np.full(jobs, -1, np.int64)
    bid = np.zeros(jobs)
    member = np.empty(member_start[-1] + 1, np.int32)
    place = np.full(jobs, -1, np.int64)
    members = np.zeros(classes, np.int64)
    queue = np.empty(jobs + 1, np.int32)
    queued = np.zeros(jobs, np.bool_)
    head, tail, room = 0, 0, jobs + 1
    for j in order:
        queue[tail] = j
        tail += 1
        queued[j] = True
    bids = 0
    out = np.empty(1024, np.int32)
    turn, sweep, bids_max = 0, 0, 40 * jobs
    while True:
        if head != tail:
            j = queue[head]
            head = (head + 1) % room
            queued[j] = False
        elif sweep < sweeps:
            if turn == jobs:
                turn = 0
                sweep += 1
                for c in range(classes):  # Where there is room left nobody has to outbid anyone.
                    for m in range(levels):
                        if (capacity[c, m] - used[c, m]) > 0.02 * capacity[c, m]:
                            price[c, m] *= 0.7
                continue
            j = order[turn] if turn < len(order) else -1
            turn += 1
            if j < 0:
                turn = jobs
                continue
        else:
            break
        # It leaves, if only to see what it would cost to come back.
        was = won[j]
        if was >= 0:
            c = kind[was]
            _leave(c, j, won, place, member, member_start, members, used, k, level)
            taken[c, bins[was]] -= k[j]
            _raise_stairs(c, taken, stair, slope, steps, device_start, ask_sum, gangs)
        s = gang[j]
        best, second, at = 0.0, 0.0, -1
        for e in range(start[j], start[j + 1]):
            c, b = kind[e], bins[e]
            net = worth[e] - k[j] * (
                price[c, level[j]] + stair[c, s, b] + slope[c, s, b] * (hours[e] - steps[b])
            )
            if e == was:
                net += k[j] * price[c, level[j]]  # Its place is its own.
            if net > best:
                best, second, at = net, best, e
            elif net > second:
                second = net
        if at < 0 or bids > bids_max:
            continue
        c = kind[at]
        if at != was:
            bids += 1
            bid[j] = price[c, level[j]] + (best - second) / k[j] + eps
        won[j] = at
        place[j] = members[c]
        member[member_start[c] + members[c]] = j
        members[c] += 1
        for m in range(level[j] + 1):
            used[c, m] += k[j]
        taken[c, bins[at]] += k[j]
        for m in range(levels - 1, -1, -1):
            over = used[c, m] - capacity[c, m]
            if over <= 0:
                continue
            n = _cheapest(c, m, over, member, member_start, members, bid, k, level, out)
            top = 0.0
            for x in range(n):
                i = out[x]
                top = max(top, bid[i])
                taken[c, bins[won[i]]] -= k[i]
                _leave(c, i, won, place, member, member_start, members, used, k, level)
                if not queued[i]:
                    queue[tail] = i
                    tail = (tail + 1) % room
                    queued[i] = True
            for higher in range(m, levels):
                price[c, higher] = max(price[c, higher], top)
        _raise_stairs(c, taken, stair, slope, steps, device_start, ask_sum, gangs)
    return won, price, stair, slope, bids


@njit(cache=True)
def guesses(start, kind, worth, hours, bins, k, gang, stair, slope, steps):
    """Each edge's worth less about what its devices would cost, by the staircases."""
    guess = np.empty(len(kind))
    for j in range(len(k)):
        s = gang[j]
        for e in range(start[j], start[j + 1]):
            c, b = kind[e], bins[e]
            guess[e] = worth[e] - k[j] * (stair[c, s, b] + slope[c, s, b] * (hours[e] - steps[b]))
    return guess


@njit(cache=True)
def _raise_stairs(c, taken, stair, slope, steps, device_start, ask_sum, gangs):
    """The staircases of class c anew, for each size of gang, from the devices that jobs of each bin take.

    A gang pushes those with shorter hours to dearer devices; a staircase is what that costs in all, exactly
    where offers can be divided: with P the sum of the cheapest asks and q devices taken by longer jobs,
    the sum
    over bins of their width times P(q + gang) - P(q).
    """
    first, n = device_start[c], device_start[c + 1] - device_start[c]
    top = ask_sum[first + n] - ask_sum[first + n - 1]
    for s in range(len(gangs)):
        longer, g = 0, gangs[s]
        for b in range(BINS - 1, -1, -1):
            longer += taken[c, b]
            low = min(longer, n)
            high = min(low + g, n)
            slope[c, s, b] = (ask_sum[first + high] - ask_sum[first + low] + (g - high + low) * top) / g
        stair[c, s, 0] = 0.0
        for b in range(1, BINS):
            stair[c, s, b] = stair[c, s, b - 1] + slope[c, s, b - 1] * (steps[b] - steps[b - 1])


@njit(cache=True)
def _cheapest(c, m, over, member, member_start, members, bid, k, level, out):
    """The cheapest set of winners of level m and above with `over` devices: their number, in `out`.

    Lowest bids for a device first; or a single one with enough, where that is cheaper in all.
    """
    base = member_start[c]
    freed, n, total = 0, 0, 0.0
    while freed < over and n < len(out):
        lowest, chosen = np.inf, -1
        for x in range(members[c]):
            i = member[base + x]
            if level[i] >= m and bid[i] < lowest:
                already = False
                for y in range(n):
                    if out[y] == i:
                        already = True
                        break
                if not already:
                    lowest, chosen = bid[i], i
        if chosen < 0:
            break
        out[n] = chosen
        n += 1
        freed += k[chosen]
        total += bid[chosen] * k[chosen]
    x = n - 1
    while x >= 0:  # Whoever need not go stays, the dearest first.
        if freed - k[out[x]] >= over:
            freed -= k[out[x]]
            total -= bid[out[x]] * k[out[x]]
            for y in range(x, n - 1):
                out[y] = out[y + 1]
            n -= 1
        x -= 1
    for x in range(members[c]):
        i = member[base + x]
        if level[i] >= m and k[i] >= over and bid[i] * k[i] < total:
            total, out[0], n = bid[i] * k[i], i, 1
    return n


@njit(cache=True)
def _leave(c, i, won, place, member, member_start, members, used, k, level):
    """Take job i out of class c."""
    base = member_start[c]
    last = member[base + members[c] - 1]
    member[base + place[i]] = last
    place[last] = place[i]
    members[c] -= 1
    for m in range(level[i] + 1):
        used[c, m] -= k[i]
    won[i] = -1
    place[i] = -1
