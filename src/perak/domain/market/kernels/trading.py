"""Let jobs of one size trade places, by an auction of these."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock

BIDS_A_PLACE = 100
"""On the mean, several times as many as are needed; who is out then stays out."""


class Places(NamedTuple):
    """What matched jobs have: by size of the job, then class, then ask.

    One's devices are good for any job of as many whose groups divide its parts.
    """

    ask: Floats
    """Of all its devices together."""
    grain: Ints
    """The greatest common divisor of its parts."""
    holder: Ints
    """A job, or -1."""
    price: Floats
    seen: Floats
    """[class]: hours, and what the cheapest of its places cost for so long when these were last looked at."""
    first: Ints
    """[size, class]: the first place; one more class, which ends the size."""
    job: Ints
    """All jobs by size."""
    first_job: Ints
    """Each size's first; one more at the end."""


def places_of(edges: Edges, gangs: Gangs, stock: Stock, rows: Ints) -> tuple[Places, Ints]:
    """(the places that a plan's rows (job, offer, devices) are, each row's place)."""
    classes = len(stock.start) - 1
    kind = np.repeat(np.arange(classes), np.diff(stock.start))
    job, one, place = np.unique(rows[:, 0], return_index=True, return_inverse=True)
    ask = np.zeros(len(job))
    np.add.at(ask, place, rows[:, 2] * stock.price[rows[:, 1]])
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(job)))
    grain = np.gcd.reduceat(rows[order, 2], first) if len(job) else np.zeros(0, np.int64)
    live = np.flatnonzero(np.diff(edges.start))
    size, group = np.unique(gangs.devices[live], return_inverse=True)
    mine = np.searchsorted(size, gangs.devices[job]) * (classes + 1) + kind[rows[one, 1]]
    order = np.lexsort((ask, mine))
    at = np.empty(len(job), np.int64)
    at[order] = np.arange(len(job))
    bounds = np.arange(len(size) * (classes + 1)).reshape(len(size), classes + 1)
    by_size = np.argsort(group, kind="stable")
    places = Places(
        ask=ask[order], grain=grain[order], holder=job[order], price=np.zeros(len(job)),
        seen=np.zeros((classes, 2)), first=np.searchsorted(mine[order], bounds).astype(np.int64),
        job=live[by_size], first_job=np.searchsorted(group[by_size], np.arange(len(size) + 1)),
    )  # fmt: skip
    return places, at[place]


@njit(cache=True, error_model="numpy")
def trade(edges, gangs, places, won, opening, step):
    """Let jobs bid for the places of their size, with `won`, each job's edge or -1: how many bids.

    As Bertsekas' auction (1988) has it: a job bids for the place where it is best off, up to the difference
    to its second best and a `step` more, in what a place gains on the mean; whoever had it bids again. Places
    open at the share `opening` of what tells those of a class apart: with 0 the outcome is a step for each
    place below the best at most. A size stays as it was where that is no gain. How offers are divided never
    changes.
    """
    bids, jobs = 0, len(won)
    place, queue, queued = np.full(jobs, -1, np.int64), np.empty(jobs, np.int64), np.ones(jobs, np.bool_)
    holders, edge = places.holder.copy(), won.copy()
    for s in range(len(places.holder)):
        place[places.holder[s]] = s
    for z in range(len(places.first)):
        first, last = places.first[z, 0], places.first[z, -1]
        for c in range(len(places.seen)):
            places.seen[c, 0], places.seen[c, 1] = 0.0, 0.0
        before = _open(z, opening, edges, places, won)
        if before <= 0.0:
            continue
        bids += _bid(z, step * before / (last - first), edges, gangs, places, won, place, queue, queued)
        _fill(z, edges, gangs, places, won, place)
        if _worth(z, edges, places, won) <= before:
            for s in range(first, last):
                if places.holder[s] >= 0:
                    won[places.holder[s]] = -1
            for s in range(first, last):
                places.holder[s] = holders[s]
                won[holders[s]] = edge[holders[s]]
    return bids


@inner()
def _worth(z, edges, places, won):
    """What the jobs of a size are worth less their cost."""
    total, holder = 0.0, places.holder
    for s in range(places.first[z, 0], places.first[z, -1]):
        if holder[s] >= 0:
            e = won[holder[s]]
            total += edges.worth[e] - edges.hours[e] * places.ask[s]
    return total


@inner()
def _open(z, opening, edges, places, won):
    """Set the prices at which the places of a size open: `_worth` of them.

    What a place is worth above the next dearer one of its class is what that one's job would save.
    """
    first, ask, price, holder = places.first, places.ask, places.price, places.holder
    for c in range(first.shape[1] - 1):
        for s in range(first[z, c + 1] - 2, first[z, c] - 1, -1):
            saved = edges.hours[won[holder[s + 1]]] * (ask[s + 1] - ask[s])
            price[s] = price[s + 1] + opening * saved
    return _worth(z, edges, places, won)


@inner()
def _bid(z, eps, edges, gangs, places, won, place, queue, queued):
    """Let all jobs of a size bid until nobody would: how many bids."""
    begin, n = places.first_job[z], places.first_job[z + 1] - places.first_job[z]
    price, holder = places.price, places.holder
    head, waiting, bids = 0, n, 0
    most = BIDS_A_PLACE * (places.first[z, -1] - places.first[z, 0])
    for x in range(n):
        queue[x] = places.job[begin + x]
    while waiting > 0 and bids < most:
        j = queue[head]
        head, waiting, queued[j] = head + 1 if head + 1 < n else 0, waiting - 1, False
        best, second, at, edge = _best(j, z, edges, gangs, places)
        mine = place[j]
        if mine >= 0:
            e = won[j]
            if edges.worth[e] - edges.hours[e] * places.ask[mine] - price[mine] >= max(0.0, best - eps):
                continue
            holder[mine], place[j], won[j] = -1, -1, -1
        if at < 0:
            continue
        price[at] += best - second + eps
        bids += 1
        i = holder[at]
        holder[at], place[j], won[j] = j, at, edge
        if i >= 0:
            place[i], won[i] = -1, -1
            if not queued[i]:
                queue[(head + waiting) % n], queued[i] = i, True
                waiting += 1
    return bids


@inner()
def _best(j, z, edges, gangs, places):
    """(what job j would gain most, and second most, by a place; that place or -1, and the edge to it)."""
    first, ask, grain, price, g = places.first, places.ask, places.grain, places.price, gangs.per_node[j]
    best, second, at, edge = 0.0, 0.0, np.int64(-1), np.int64(-1)
    for e in range(edges.start[j], edges.start[j + 1]):
        c, worth, hours = edges.kind[e], edges.worth[e], edges.hours[e]
        begin, last = first[z, c], first[z, c + 1]
        if begin == last:
            continue
        longer = hours - places.seen[c, 0]  # Prices only rise, and a place costs its ask more an hour.
        if worth - places.seen[c, 1] - longer * ask[begin if longer > 0 else last - 1] <= second:
            continue
        low = np.inf
        for s in range(begin, last):
            cost = hours * ask[s] + price[s]
            low = min(low, cost)
            gain = worth - cost
            if gain <= second or (g > 1 and grain[s] % g != 0):
                continue
            if gain > best:
                best, second, at, edge = gain, best, s, e
            else:
                second = gain
        places.seen[c, 0], places.seen[c, 1] = hours, low
    return best, second, at, edge


@inner()
def _fill(z, edges, gangs, places, won, place):
    """Let whoever gains most have a place that was left, then the one that was theirs, and so on."""
    first, ask, grain, holder = places.first, places.ask, places.grain, places.holder
    for c in range(first.shape[1] - 1):
        for each in range(first[z, c], first[z, c + 1]):
            s, d = each, c
            while s >= 0 and holder[s] < 0:
                most, who, edge = 0.0, np.int64(-1), np.int64(-1)
                for x in range(places.first_job[z], places.first_job[z + 1]):
                    j = places.job[x]
                    if grain[s] % gangs.per_node[j] != 0:
                        continue
                    for e in range(edges.start[j], edges.start[j + 1]):
                        if edges.kind[e] == d:
                            gain = edges.worth[e] - edges.hours[e] * ask[s]
                            if place[j] >= 0:
                                gain -= edges.worth[won[j]] - edges.hours[won[j]] * ask[place[j]]
                            if gain > most:
                                most, who, edge = gain, j, e
                            break
                if who < 0:
                    break
                old = place[who]
                if old >= 0:
                    holder[old], d = -1, np.int64(edges.kind[won[who]])
                holder[s], place[who], won[who] = who, s, edge
                s = old
