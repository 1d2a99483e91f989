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


class Slots(NamedTuple):
    """One class: by offer its size and ask, and who of the jobs has groups of each level."""

    size: np.ndarray
    ask: np.ndarray
    devices: np.ndarray
    hours: np.ndarray
    worth: np.ndarray
    order: np.ndarray
    """The jobs by level, and within a level by hours."""
    upto: np.ndarray
    """The first place in `order` of each level; one more at the end."""


class Larger(NamedTuple):
    """What groups of 8 and of 4 could bring: by the number of each that every offer gives."""

    box8: np.ndarray
    """By offer: groups of 8 that it has at most."""
    stride8: np.ndarray
    """By offer: what one more adds to a number's place."""
    eights: np.ndarray
    """By number: what the best jobs on them bring."""
    box4: np.ndarray
    stride4: np.ndarray
    fours: np.ndarray


@making()
def _exactly(size, ask, devices, level, hours, worth, tolerance, entries_max, edges, first, rows, written):
    """(value, bound, rows written) of one class."""
    order = np.argsort(level, kind="mergesort")
    slots = Slots(size, ask, devices, hours, worth, order, np.searchsorted(level[order], np.arange(5)))
    larger, left3, left2 = _larger(slots)
    most, node = _numbers(size, larger, left3, left2)
    bound, chosen, pairs = _search(most, node, slots, larger, tolerance, entries_max)
    if chosen < 0:
        return 0.0, bound, written
    value, free = 0.0, size.copy()
    for g in range(3, -1, -1):
        number = free.copy()
        for o in range(len(size)):
            if g == 3:
                number[o] = _of(node[chosen, 0], o, larger.stride8, larger.box8)
            elif g == 2:
                number[o] = _of(node[chosen, 1], o, larger.stride4, larger.box4)
            elif g == 1:
                number[o] = pairs[o]
            free[o] -= number[o] << g
        k = _of_level(g, g, slots)
        part, written = _list(
            number, ask, 1 << g, devices[k], hours[k], worth[k], edges[k], first, rows, written
        )
        value += part
    return value, max(bound, value), written


@making()
def _of_level(lowest, highest, slots):
    """The jobs of these levels, the longest hours first."""
    return np.sort(slots.order[slots.upto[lowest] : slots.upto[highest + 1]])


@making()
def _of(number, o, stride, box):
    """How many groups offer o gives in a number of a box."""
    return number // stride[o] % (box[o] + 1)


@making()
def _larger(slots):
    """(`Larger`, what all smaller groups could bring in what is left beside 8s, and beside 8s and 4s).

    The latter two have their groups divided, by the number of blocks that is left.
    """
    size, ask, devices, hours, worth, _, _ = slots
    box8, box4, none = size // 8, size // 4, np.zeros(len(size), np.int64)
    some8, stride8 = _strides(box8)
    some4, stride4 = _strides(box4)
    eights, left3 = np.empty(some8), np.empty(some8)
    fours, left2 = np.empty(some4), np.empty(some4)
    k, below = _of_level(3, 3, slots), _of_level(0, 2, slots)
    _table(box8, 1, none, ask * 8, devices[k] // 8, hours[k], worth[k], eights)
    _table(box8, 8, size % 8, ask, devices[below], hours[below], worth[below], left3)
    k, below = _of_level(2, 2, slots), _of_level(0, 1, slots)
    _table(box4, 1, none, ask * 4, devices[k] // 4, hours[k], worth[k], fours)
    _table(box4, 4, size % 4, ask, devices[below], hours[below], worth[below], left2)
    return Larger(box8, stride8, eights, box4, stride4, fours), left3, left2


@making()
def _numbers(size, larger, left3, left2):
    """(what they and all that is smaller could bring at most, numbers of groups of 8 and of 4)."""
    box8, stride8, eights, box4, stride4, fours = larger
    m = len(size)
    most, count = np.empty(1024), 0
    node = np.empty((1024, 2), np.int64)
    rest, used = np.empty(m, np.int64), np.empty(m, np.int64)
    for i in range(len(eights)):
        if eights[i] + left3[len(left3) - 1 - i] <= 0.0:
            continue
        whole = 0
        for o in range(m):
            rest[o] = box4[o] - 2 * _of(i, o, stride8, box8)
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
            o = m - 1
            while o >= 0 and used[o] == rest[o]:
                x -= used[o] * stride4[o]
                used[o] = 0
                o -= 1
            if o < 0:
                break
            used[o] += 1
            x += stride4[o]
    return most[:count], node[:count]


@making()
def _search(most, node, slots, larger, tolerance, entries_max):
    """(bound, the best of the numbers or -1, pairs of each offer there)."""
    m, size, ask = len(slots.size), slots.size, slots.ask
    devices, hours, worth = slots.devices, slots.hours, slots.worth
    two, one = _of_level(1, 1, slots), _of_level(0, 0, slots)
    best, bound, entries, chosen = 0.0, 0.0, 0, -1
    none, box, pairs = np.zeros(m, np.int64), np.empty(m, np.int64), np.zeros(m, np.int64)
    for y in np.argsort(-most):
        if most[y] <= max(best + tolerance, bound):
            break
        for o in range(m):
            u8 = _of(node[y, 0], o, larger.stride8, larger.box8)
            box[o] = (size[o] - 8 * u8 - 4 * _of(node[y, 1], o, larger.stride4, larger.box4)) // 2
        product, stride2 = _strides(box)
        entries += product
        if entries > entries_max:
            bound = max(bound, most[y])
            break
        twos, ones = np.empty(product), np.empty(product)
        _table(box, 1, none, ask * 2, devices[two] // 2, hours[two], worth[two], twos)
        _table(box, 2, size % 2, ask, devices[one], hours[one], worth[one], ones)
        base = larger.eights[node[y, 0]] + larger.fours[node[y, 1]]
        found = -1
        for x in range(product):
            if base + twos[x] + ones[product - 1 - x] > best:
                best, found = base + twos[x] + ones[product - 1 - x], x
        if found >= 0:
            chosen = y
            for o in range(m):
                pairs[o] = _of(found, o, stride2, box)
    if len(most):
        bound = max(bound, min(best + tolerance, most.max()))
    return bound, chosen, pairs


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
