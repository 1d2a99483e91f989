"""The best filling of each class at given prices of jobs: exact where groups and offers are powers of two.

A filling is a set of jobs with whole groups on the offers of one class. Prices make a job worth less by what
it would pay elsewhere; the best filling is what column generation asks for (benchmarks/mip.py).

Groups of 8, of 4, of 2 and single devices are looked at in that order. Say how many groups of each size every
offer gives: then each size is a matter of its own, and with the longest hours on the cheapest groups (which
is best, by exchange) its best jobs are found by dynamic programming over the groups used. So the search is
over these numbers alone. What is left for the smaller sizes is bounded by the same programme with their
groups divided, which nearly always shows that all but a few numbers need no look.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perak.domain.market.kernels.compiling import making

LARGEST = 8
"""Devices of an offer, and of a group, at most."""


class Places(NamedTuple):
    """Classes: their offers by ask, and the jobs that fit them by hours, the longest first."""

    offer_start: np.ndarray
    """Each class's first offer; one more at the end."""
    size: np.ndarray
    """Devices: 1, 2, 4 or 8."""
    ask: np.ndarray
    edge_start: np.ndarray
    job: np.ndarray
    devices: np.ndarray
    level: np.ndarray
    """Of its groups: 0 to 3 for 1, 2, 4 and 8 devices."""
    hours: np.ndarray
    worth: np.ndarray
    least: np.ndarray
    """What the job's devices cost at least, alone in the class."""


@njit(cache=True)
def fill(places, wanted, paid, exact, tolerance, entries_max):
    """(value, bound, rows) of the best fillings of the classes `wanted`, where job j is worth `paid[j]` less.

    `bound` is at least the best value: with `exact`, within `tolerance` of it unless more than `entries_max`
    numbers of groups would have to be looked at; else groups are divided, and the rows name no offers (-1).
    Rows: (edge, offer, devices), by class.
    """
    classes = len(places.offer_start) - 1
    value, bound = np.zeros(classes), np.zeros(classes)
    rows = np.empty((len(places.size) * LARGEST, 3), np.int64)
    written = 0
    for c in wanted:
        first, last = places.offer_start[c], places.offer_start[c + 1]
        low, high = places.edge_start[c], places.edge_start[c + 1]
        mine = np.empty(high - low, np.int64)
        n = 0
        for e in range(low, high):
            if places.worth[e] - paid[places.job[e]] - places.least[e] > 0.0:
                mine[n] = e
                n += 1
        if n == 0 or first == last:
            continue
        size, ask = places.size[first:last], places.ask[first:last]
        edges = _undominated(mine[:n], size.sum(), paid, places)
        worth = places.worth[edges] - paid[places.job[edges]]
        hours, devices, level = places.hours[edges], places.devices[edges], places.level[edges]
        if exact:
            value[c], bound[c], written = _exactly(
                size, ask, devices, level, hours, worth, tolerance, entries_max, edges, first, rows, written
            )
        else:
            value[c], written = _list(size, ask, 1, devices, hours, worth, edges, -1, rows, written)
            bound[c] = value[c]
    return value, bound, rows[:written]


@making()
def _undominated(edges, room, paid, places):
    """Those edges that a best filling of `room` devices may need.

    One is not needed where so many others are worth no less, for no more devices or hours and in no larger
    groups, that one of these is always left to take its place.
    """
    n = len(edges)
    worth = places.worth[edges] - paid[places.job[edges]]
    hours, devices, level = places.hours[edges], places.devices[edges], places.level[edges]
    needed = np.ones(n, np.bool_)
    for b in range(n):
        better = devices[b]
        for a in range(n - 1, -1, -1):
            if (
                worth[a] >= worth[b]
                and devices[a] <= devices[b]
                and hours[a] <= hours[b]
                and level[a] <= level[b]
                and (a < b or worth[a] > worth[b] or devices[a] < devices[b] or hours[a] < hours[b])
                and a != b
            ):
                better += devices[a]
                if better > room:
                    needed[b] = False
                    break
    return edges[needed]


@making()
def _exactly(size, ask, devices, level, hours, worth, tolerance, entries_max, edges, first, rows, written):
    """(value, bound, rows written) of one class."""
    m = len(size)
    at = [np.flatnonzero(level == g) for g in range(4)]
    below2, below1 = np.flatnonzero(level <= 2), np.flatnonzero(level <= 1)
    none = np.zeros(m, np.int64)
    box3, box2 = size // 8, size // 4
    some8, stride8 = _strides(box3)
    some4, stride4 = _strides(box2)
    eights, left3 = np.empty(some8), np.empty(some8)
    _table(box3, 1, none, ask * 8, devices[at[3]] // 8, hours[at[3]], worth[at[3]], eights)
    _table(box3, 8, size % 8, ask, devices[below2], hours[below2], worth[below2], left3)
    fours, left2 = np.empty(some4), np.empty(some4)
    _table(box2, 1, none, ask * 4, devices[at[2]] // 4, hours[at[2]], worth[at[2]], fours)
    _table(box2, 4, size % 4, ask, devices[below1], hours[below1], worth[below1], left2)
    # Numbers of groups of 8 and of 4, with what they and all that is smaller could bring at most.
    most, count = np.empty(1024), 0
    node = np.empty((1024, 2), np.int64)
    top = -np.inf
    rest, used = np.empty(m, np.int64), np.empty(m, np.int64)
    for i in range(some8):
        most8 = eights[i] + left3[some8 - 1 - i]
        if most8 <= 0.0:
            continue
        whole = 0
        for o in range(m):
            rest[o] = box2[o] - 2 * (i // stride8[o] % (box3[o] + 1))
            whole += stride4[o] * rest[o]
        used[:] = 0
        x = 0
        while True:
            b = eights[i] + fours[x] + left2[whole - x]
            if b > 0.0:
                if count == len(most):
                    most = np.concatenate((most, np.empty(count)))
                    node = np.concatenate((node, np.empty((count, 2), np.int64)))
                most[count], node[count, 0], node[count, 1] = b, i, x
                count += 1
                top = max(top, b)
            o = m - 1
            while o >= 0 and used[o] == rest[o]:
                x -= used[o] * stride4[o]
                used[o] = 0
                o -= 1
            if o < 0:
                break
            used[o] += 1
            x += stride4[o]
    best, bound, entries = 0.0, 0.0, 0
    best_node, best_pairs = -1, none.copy()
    box = np.empty(m, np.int64)
    single = size % 2
    for y in np.argsort(-most[:count]):
        if most[y] <= max(best + tolerance, bound):
            break
        product = 1
        for o in range(m):
            u8 = node[y, 0] // stride8[o] % (box3[o] + 1)
            u4 = node[y, 1] // stride4[o] % (box2[o] + 1)
            box[o] = (size[o] - 8 * u8 - 4 * u4) // 2
            product *= box[o] + 1
        entries += product
        if entries > entries_max:
            bound = max(bound, most[y])
            break
        twos, ones = np.empty(product), np.empty(product)
        _table(box, 1, none, ask * 2, devices[at[1]] // 2, hours[at[1]], worth[at[1]], twos)
        _table(box, 2, single, ask, devices[at[0]], hours[at[0]], worth[at[0]], ones)
        base = eights[node[y, 0]] + fours[node[y, 1]]
        found = -1
        for x in range(product):
            if base + twos[x] + ones[product - 1 - x] > best:
                best, found = base + twos[x] + ones[product - 1 - x], x
        if found >= 0:
            best_node = y
            _, stride2 = _strides(box)
            for o in range(m):
                best_pairs[o] = found // stride2[o] % (box[o] + 1)
    bound = max(bound, min(best + tolerance, top)) if count else 0.0
    if best_node < 0:
        return 0.0, bound, written
    value = 0.0
    free = size.copy()
    for g in range(3, -1, -1):
        number = free.copy()
        for o in range(m):
            if g == 3:
                number[o] = node[best_node, 0] // stride8[o] % (box3[o] + 1)
            elif g == 2:
                number[o] = node[best_node, 1] // stride4[o] % (box2[o] + 1)
            elif g == 1:
                number[o] = best_pairs[o]
            free[o] -= number[o] << g
        k = at[g]
        part, written = _list(
            number, ask, 1 << g, devices[k], hours[k], worth[k], edges[k], first, rows, written
        )
        value += part
    return value, max(bound, value), written


@making()
def _strides(box):
    """(how many numbers the box has, what one more of each offer adds to a number's place)."""
    stride = np.ones(len(box), np.int64)
    for o in range(len(box) - 2, -1, -1):
        stride[o] = stride[o + 1] * (box[o + 1] + 1)
    return stride[0] * (box[0] + 1), stride


@making()
def _table(box, block, fixed, cost, take, hours, worth, out):
    """Fill `out` with the most that jobs are worth less their cost, for each number of blocks in the box.

    An offer gives `block` slots for each of its blocks and `fixed` more; a slot costs `cost` an hour there.
    Each job takes `take` slots. The offers are by cost, and the last one's number grows first: a number
    differs from the one before in its last slots alone, and nothing before them is done again.
    """
    m, n = len(box), len(take)
    if n == 0:
        out[:] = 0.0
        return
    slots = 0
    for o in range(m):
        slots += fixed[o] + block * box[o]
    best = np.empty((slots + 1, n + 1))
    best[0] = 0.0
    asked, most = np.zeros(slots + 1), np.zeros(slots + 1)
    end, number = np.zeros(m + 1, np.int64), np.zeros(m, np.int64)
    for o in range(m):
        end[o + 1] = _extend(end[o], fixed[o], cost[o], best, asked, most, take, hours, worth)
    for x in range(len(out)):
        out[x] = most[end[m]]
        o = m - 1
        while o >= 0 and number[o] == box[o]:
            number[o] = 0
            o -= 1
        if o < 0:
            break
        number[o] += 1
        end[o + 1] = _extend(end[o + 1], block, cost[o], best, asked, most, take, hours, worth)
        for z in range(o + 1, m):
            end[z + 1] = _extend(end[z], fixed[z], cost[z], best, asked, most, take, hours, worth)


@making()
def _extend(q, more, cost, best, asked, most, take, hours, worth):
    """Add `more` slots after q: the number of slots then. ``best[q, i]``: the first i jobs use q slots."""
    for _ in range(more):
        q += 1
        asked[q] = asked[q - 1] + cost
        best[q, 0] = -np.inf
        for i in range(len(take)):
            t, most_here = take[i], best[q, i]
            if t <= q:
                most_here = max(most_here, best[q - t, i] + worth[i] - hours[i] * (asked[q] - asked[q - t]))
            best[q, i + 1] = most_here
        most[q] = max(most[q - 1], best[q, len(take)])
    return q


@making()
def _list(number, ask, group, devices, hours, worth, edges, first, rows, written):
    """(value, rows written) of the best jobs on so many groups of each offer; no offers where first < 0."""
    total, n = number.sum(), len(devices)
    if n == 0 or total == 0:
        return 0.0, written
    best = np.empty((total + 1, n + 1))
    best[0] = 0.0
    asked, most = np.zeros(total + 1), np.zeros(total + 1)
    take = devices // group
    q = 0
    for o in range(len(number)):
        q = _extend(q, number[o], ask[o] * group, best, asked, most, take, hours, worth)
    at = np.repeat(np.arange(len(number)), number)
    q = np.argmax(best[:, n])
    value = best[q, n]
    for i in range(n - 1, -1, -1):
        if best[q, i + 1] == best[q, i]:
            continue
        for s in range(q - take[i], q):
            if first < 0:
                rows[written, 0], rows[written, 1], rows[written, 2] = edges[i], -1, devices[i]
                written += 1
                break
            rows[written, 0], rows[written, 1], rows[written, 2] = edges[i], first + at[s], group
            written += 1
        q -= take[i]
    return value, written
