"""The gang auction: jobs bid for classes, and the cheapest set of winners is displaced.

A job of level m can use an offer with at least ``size[m]`` devices, so that capacities are a chain: what jobs
of level l and above take must not exceed what offers can give in groups of ``size[l]``. The *staircase* of a
class is what a device costs there by the hours that it is used: the jobs that run longest take the cheapest
devices. There is one for each level, of the jobs of that level and above on what is large enough for them; a
job counts with the highest of those up to its own, as large groups can't have cheap devices of small offers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perak.domain.market.clearing import Flags, Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.edges import BINS
from perak.domain.market.kernels.shapes import Edges

SPARE = 0.02
"""Share of a class's capacity beyond which nobody has to outbid anyone for it."""
CUT = 0.7
"""Its price falls by this factor then, after each sweep."""
DISPLACED_MAX = 1024
"""Winners that one bid may displace."""
BIDS_A_JOB = 40
"""On the mean; with more the rest stay outside."""


class Hall(NamedTuple):
    """Who has won what, and who waits to bid again."""

    won: Ints
    """By job: an edge, or -1."""
    bid: Floats
    place: Ints
    """By job: its place among the members of its class."""
    member: Ints
    members: Ints
    used: Ints
    price: Floats
    taken: Ints
    """[class, level, bin]: devices of jobs of these hours, of the level and above."""
    queue: Ints
    queued: Flags
    ends: Ints
    """The queue's first and the place after its last, and how many bids there were."""
    out: Ints


@njit(cache=True)
def auction(edges, bins, gangs, gang, order, stock, stairs, eps, sweeps):
    """Bertsekas' auction with gangs, at the level of classes: (edge that each job won or -1, prices, bids).

    A job bids for the class where it is best off, up to the difference to its second best and `eps` more, per
    device; where that exceeds what the class can give, the cheapest set of winners is displaced and the price
    of the class rises to what they bid. `order`: the first bids, those of the densest jobs first. In each of
    `sweeps` afterwards whoever is now better off elsewhere, or was left out and need not be, bids again.
    `stairs` are filled; `gang`: each job's row of them.
    """
    jobs, (classes, levels) = len(gangs.devices), stock.capacity.shape
    hall = Hall(
        np.full(jobs, -1, np.int64), np.zeros(jobs), np.full(jobs, -1, np.int64),
        np.empty(stock.device_start[-1] + classes + 2, np.int64), np.zeros(classes, np.int64),
        np.zeros((classes, levels), np.int64), np.zeros((classes, levels)),
        np.zeros((classes, levels, BINS), np.int64),
        np.empty(jobs + 1, np.int64), np.zeros(jobs, np.bool_), np.zeros(3, np.int64),
        np.empty(DISPLACED_MAX, np.int64),
    )  # fmt: skip
    for c in range(classes):
        for s in range(len(stairs.gangs)):
            for m in range(levels):
                _raise_stair(c, m, s, hall.taken, stairs, stock)
    for j in order:
        _bid(j, edges, bins, gangs, gang, stock, stairs, hall, eps)
    _call(edges, bins, gangs, gang, stock, stairs, hall, eps)
    for _ in range(sweeps):
        for j in order:
            _bid(j, edges, bins, gangs, gang, stock, stairs, hall, eps)
            _call(edges, bins, gangs, gang, stock, stairs, hall, eps)
        for c in range(classes):
            for m in range(levels):
                if (stock.capacity[c, m] - hall.used[c, m]) > SPARE * stock.capacity[c, m]:
                    hall.price[c, m] *= CUT
    return hall.won, hall.price, hall.ends[2]


@inner()
def _call(edges, bins, gangs, gang, stock, stairs, hall, eps):
    """Let those who were displaced bid, first come, first served, until nobody waits."""
    while hall.ends[0] != hall.ends[1]:
        j = hall.queue[hall.ends[0]]
        hall.ends[0] = (hall.ends[0] + 1) % len(hall.queue)
        hall.queued[j] = False
        _bid(j, edges, bins, gangs, gang, stock, stairs, hall, eps)


@inner()
def _bid(j, edges, bins, gangs, gang, stock, stairs, hall, eps):
    """Let job j bid for the class where it is best off now, if there is one."""
    s, k, m = gang[j], gangs.devices[j], gangs.level[j]
    was = hall.won[j]
    if was >= 0:  # It leaves, if only to see what it would cost to come back.
        _leave(j, edges, bins, gangs, stock, hall)
        for low in range(m + 1):
            _raise_stair(np.int64(edges.kind[was]), low, s, hall.taken, stairs, stock)
    best, second, at = 0.0, 0.0, np.int64(-1)
    kind, hours, worth, price = edges.kind, edges.hours, edges.worth, hall.price
    stair, slope, steps = stairs.at, stairs.slope, stairs.steps
    for e in range(edges.start[j], edges.start[j + 1]):
        c, b = kind[e], bins[e]
        cost = _cost(c, m, s, b, hours[e] - steps[b], stair, slope)
        net = worth[e] - k * (cost + (0.0 if e == was else price[c, m]))  # Its place is its own.
        if net > best:
            best, second, at = net, best, e
        elif net > second:
            second = net
    if hall.ends[2] > BIDS_A_JOB * len(gang):
        at = -1
    if at != was and was >= 0:
        for other in range(len(stairs.gangs)):
            for low in range(m + 1):
                _raise_stair(np.int64(edges.kind[was]), low, other, hall.taken, stairs, stock)
    if at < 0:
        return
    c = np.int64(edges.kind[at])
    if at != was:
        hall.ends[2] += 1
        hall.bid[j] = hall.price[c, m] + (best - second) / k + eps
    _enter(j, at, edges, bins, gangs, stock, hall)
    over = False
    for level in range(len(stock.size) - 1, -1, -1):
        if hall.used[c, level] > stock.capacity[c, level]:
            over = True
            _displace(c, level, edges, bins, gangs, stock, hall)
    for other in range(len(stairs.gangs)):
        if at != was or over or other == s:
            for low in range(len(stock.size) if over else m + 1):
                _raise_stair(c, low, other, hall.taken, stairs, stock)


@inner()
def _cost(c, m, s, b, past, stair, slope):
    """What a device of class c costs a job of level m and gang size s, `past` hours above those of bin b."""
    cost = 0.0
    for low in range(m + 1):
        cost = max(cost, stair[c, low, s, b] + slope[c, low, s, b] * past)
    return cost


@inner()
def _displace(c, level, edges, bins, gangs, stock, hall):
    """Displace the cheapest set of winners that are too many in class c; its price rises to what they bid."""
    over = hall.used[c, level] - stock.capacity[c, level]
    top = 0.0
    for x in range(_cheapest(c, level, over, gangs, stock, hall)):
        i = hall.out[x]
        top = max(top, hall.bid[i])
        _leave(i, edges, bins, gangs, stock, hall)
        if not hall.queued[i]:
            hall.queue[hall.ends[1]] = i
            hall.ends[1] = (hall.ends[1] + 1) % len(hall.queue)
            hall.queued[i] = True
    for higher in range(level, len(stock.size)):
        hall.price[c, higher] = max(hall.price[c, higher], top)


@inner()
def _cheapest(c, m, over, gangs, stock, hall):
    """The cheapest set of winners of level m and above with `over` devices: their number, in `out`.

    Lowest bids for a device first; or a single one with enough, where that is cheaper in all.
    """
    base, out, member, bid = stock.device_start[c] + c, hall.out, hall.member, hall.bid
    level, devices = gangs.level, gangs.devices
    freed, n, total = 0, 0, 0.0
    while freed < over and n < len(out):
        lowest, chosen = np.inf, -1
        for x in range(base, base + hall.members[c]):
            i = member[x]
            if level[i] >= m and bid[i] < lowest:
                already = False
                for y in range(n):
                    already = already or out[y] == i
                if not already:
                    lowest, chosen = bid[i], i
        if chosen < 0:
            break
        out[n] = chosen
        n += 1
        freed += devices[chosen]
        total += bid[chosen] * devices[chosen]
    for x in range(n - 1, -1, -1):  # Whoever need not go stays, the dearest first.
        k = devices[out[x]]
        if freed - k >= over:
            freed -= k
            total -= bid[out[x]] * k
            for y in range(x, n - 1):
                out[y] = out[y + 1]
            n -= 1
    for x in range(base, base + hall.members[c]):
        i = member[x]
        k = devices[i]
        if level[i] >= m and k >= over and bid[i] * k < total:
            total, out[0], n = bid[i] * k, i, 1
    return n


@inner()
def _enter(j, at, edges, bins, gangs, stock, hall):
    """Let job j have edge `at`."""
    c = edges.kind[at]
    hall.won[j] = at
    hall.place[j] = hall.members[c]
    hall.member[stock.device_start[c] + c + hall.members[c]] = j
    hall.members[c] += 1
    for m in range(gangs.level[j] + 1):
        hall.taken[c, m, bins[at]] += gangs.devices[j]
        hall.used[c, m] += gangs.devices[j]


@inner()
def _leave(j, edges, bins, gangs, stock, hall):
    """Take job j out of its class."""
    c = edges.kind[hall.won[j]]
    base = stock.device_start[c] + c
    last = hall.member[base + hall.members[c] - 1]
    hall.member[base + hall.place[j]] = last
    hall.place[last] = hall.place[j]
    hall.members[c] -= 1
    for m in range(gangs.level[j] + 1):
        hall.taken[c, m, bins[hall.won[j]]] -= gangs.devices[j]
        hall.used[c, m] -= gangs.devices[j]
    hall.won[j] = -1
    hall.place[j] = -1


@inner()
def _raise_stair(c, m, s, taken, stairs, stock):
    """The staircase of class c anew for a level and a size of gang, from the devices that jobs take by bin.

    A gang pushes those with shorter hours to dearer devices; a staircase is what that costs in all, exactly
    where offers can be divided: with P the sum of the cheapest asks and q devices taken by longer jobs, the
    sum over bins of their width times P(q + gang) - P(q).
    """
    first, n = stock.level_start[m, c], stock.capacity[c, m]
    at, slope, asks = stairs.at[c, m, s], stairs.slope[c, m, s], stock.level_asks[first : first + n + 1]
    top = asks[n] - asks[n - 1] if n else 0.0
    longer, g, steps = 0, stairs.gangs[s], stairs.steps
    for b in range(BINS - 1, -1, -1):
        longer += taken[c, m, b]
        low = min(longer, n)
        high = min(low + g, n)
        slope[b] = (asks[high] - asks[low] + (g - high + low) * top) / g
    at[0] = 0.0
    for b in range(1, BINS):
        at[b] = at[b - 1] + slope[b - 1] * (steps[b] - steps[b - 1])


@njit(cache=True)
def promising(edges, bins, gangs, gang, stairs, won):
    """(the edges that hope for something or were won, each's guess, the edge of these that each job won).

    A guess is an edge's worth less about what its devices would cost, by the staircases.
    """
    start, kind, worth, hours = edges
    stair, slope, _, steps = stairs
    devices, level = gangs.devices, gangs.level
    begin, their, most = np.zeros_like(start), np.full_like(won, -1), len(kind)
    kinds, worths = np.empty_like(kind), np.empty(most)
    hour, guess = np.empty(most), np.empty(most)
    n = 0
    for j in range(len(gang)):
        s, k, m = gang[j], devices[j], level[j]
        for e in range(start[j], start[j + 1]):
            c, b = kind[e], bins[e]
            hope = worth[e] - k * _cost(c, m, s, b, hours[e] - steps[b], stair, slope)
            if hope > 0.0 or e == won[j]:
                kinds[n], worths[n], hour[n], guess[n] = c, worth[e], hours[e], hope
                if e == won[j]:
                    their[j] = n
                n += 1
        begin[j + 1] = n
    return Edges(begin, kinds[:n], worths[:n], hour[:n]), guess[:n], their
