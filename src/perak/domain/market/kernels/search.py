"""Ruin and recreate over the classes of a market."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from perak.domain.market.clearing import Flags, Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.gangs import bench_of, pack

CANDIDATES = 24
"""Jobs that are left out, by class, that a trial may let in."""
EXACT_MAX = 128
"""Devices of a class in which the best of a pool are found exactly; that costs devices x jobs."""
RUINS_SMALL, RUINS = 4, 3
"""Classes of a trial at most, where they are no larger than that and else."""
SHARE_SMALL, SHARE = 0.4, 0.05
"""Of the winners that are taken out, at the least; at most 0.6 more."""
NOISE = 0.3
"""What jobs are worth is disturbed by this share at most."""


class Seats(NamedTuple):
    """A plan: the edge that each job won, or -1, and by class its members, longest hours first."""

    won: Ints
    cost: Floats
    """By job: the asks of its devices."""
    member: Ints
    start: Ints
    """Each class's first place in `member`."""
    members: Ints
    used: Ints
    """[class, level]: devices of jobs of the level and above."""
    total: Floats
    """By class: what its jobs are worth less their cost."""
    bias: Ints
    """By class: the row of `boost` that it is packed by."""


class Hopes(NamedTuple):
    """By class: those of the jobs left out that hope most of it, and what a device would be worth to them."""

    job: Ints
    promise: Floats


class Trial(NamedTuple):
    """Another plan for a few classes; rows of `lists` and what has their length are theirs."""

    kind: Ints
    lists: Ints
    counts: Ints
    room: Ints
    """[row, level]: devices that are free."""
    total: Floats
    bias: Ints
    won: Ints
    cost: Floats
    pool: Ints
    """The jobs to be put in."""
    key: Floats
    via: Ints
    """[place in the pool, row]: the edge, or -1."""
    order: Ints
    """The jobs of a class in the order in which they are packed."""
    stamp: Ints
    """By job: the trial that it was last a candidate of."""
    state: Ints
    """Of the random numbers."""
    best: Floats
    """[two rows, devices used]: the most that jobs looked at so far could be worth in a class."""
    chosen: Flags
    """[place, devices used]: whether the job at the place is among those."""


@njit(cache=True)
def search(edges, guess, price, gangs, stock, won, boost, trials_max, seed):
    """Pack every class, then improve the plan by what it is truly worth: (parts, trials, gains).

    Ruin and recreate (Schrimpf et al. 2000): of a few classes that share jobs some winners are taken out;
    they and the best of those left out are put in again: in large classes by what a device is worth to them,
    disturbed at random, in small ones so that what they are worth, disturbed, is the most in all. The classes
    are packed, and the trial stands if welfare grew. `guess`: an edge's worth less about what its devices
    cost; `price`, [class, level]: what bids made of a device beyond that. `boost`, by bias and level: larger
    groups may be packed before smaller ones of longer hours, where that leaves fewer of them without cheap
    devices. `won` is changed in place; parts are (job, offer, devices).
    """
    classes = len(stock.start) - 1
    bench = bench_of(stock, gangs)
    seats = _seat(edges, gangs, stock, won, boost, bench)
    trial = _blank(len(won), stock, seed)
    for c in range(classes):
        _lean(c, edges, gangs, stock, boost, seats, trial, bench)
    hopes = Hopes(np.empty((classes, CANDIDATES), np.int32), np.empty((classes, CANDIDATES)))
    trials, gains = np.int64(0), 0
    while trials < trials_max:
        if trials % (2 * classes) == 0:
            _ask_around(edges, guess, gangs, won, hopes)
        small = stock.device_start[trials % classes + 1] - stock.device_start[trials % classes] <= EXACT_MAX
        ruins = _choose(trials % classes, small, edges, guess, stock, seats, hopes, trial)
        trials += 1
        n, before = _take_out(ruins, small, trials, gangs, stock, seats, hopes, trial)
        _look_up(n, ruins, edges, trial)
        if small:
            for y in range(ruins):
                _choose_best(y, n, ruins, edges, guess, price, gangs, stock, trial)
        else:
            _put_in(n, ruins, edges, guess, gangs, trial)
        if _judge(ruins, before, edges, gangs, stock, boost, seats, trial, bench):
            gains += 1
            _keep(n, ruins, edges, gangs, seats, trial)
    return _parts_of(edges, gangs, stock, boost, seats, trial.order, bench), trials, gains


@inner()
def _seat(edges, gangs, stock, won, boost, bench):
    """The plan that `won` says, packed; who does not fit, or costs more than it is worth, leaves."""
    jobs, (classes, levels) = len(won), stock.capacity.shape
    start = stock.device_start + np.arange(classes + 1)
    seats = Seats(
        won, np.full(jobs, np.inf), np.empty(start[-1] + 1, np.int32), start, np.zeros(classes, np.int64),
        np.zeros((classes, levels), np.int64), np.zeros(classes), np.zeros(classes, np.int64),
    )  # fmt: skip
    for j in np.argsort(-edges.hours[np.maximum(won, 0)]):
        if won[j] >= 0:
            c = edges.kind[won[j]]
            seats.member[start[c] + seats.members[c]] = j
            seats.members[c] += 1
    order = np.empty(jobs + 1, np.int32)
    for c in range(classes):
        _settle(c, edges, gangs, stock, boost, seats, order, bench)
        for x in range(start[c], start[c] + seats.members[c]):
            j = seats.member[x]
            seats.total[c] += edges.worth[won[j]] - seats.cost[j]
            for m in range(gangs.level[j] + 1):
                seats.used[c, m] += gangs.devices[j]
    return seats


@inner()
def _settle(c, edges, gangs, stock, boost, seats, order, bench):
    """Pack class c until all who are in it fit and are worth their cost: how many parts."""
    while True:
        n = seats.members[c]
        mine = seats.member[seats.start[c] : seats.start[c] + n]
        _in_order(mine, n, seats.won, edges.hours, gangs.level, boost, seats.bias[c], order)
        filled = pack(c, order, n, seats.won, edges.hours, gangs, stock, bench, seats.cost)
        kept = 0
        for x in range(n):
            j = mine[x]
            if seats.cost[j] <= edges.worth[seats.won[j]]:
                mine[kept] = j
                kept += 1
            else:
                seats.won[j] = -1
        seats.members[c] = kept
        if kept == n:
            return filled


@inner()
def _blank(jobs, stock, seed):
    """Room for trials."""
    n, levels, widest = RUINS_SMALL, len(stock.size), 0
    for c in range(len(stock.start) - 1):
        widest = max(widest, stock.device_start[c + 1] - stock.device_start[c])
    width = min(widest, EXACT_MAX) + 1
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed * 2 + 1)
    return Trial(
        np.zeros(n, np.int64), np.empty((n, jobs + 1), np.int32), np.zeros(n, np.int64),
        np.zeros((n, levels), np.int64), np.zeros(n), np.zeros(n, np.int64), np.full(jobs, -1, np.int64),
        np.full(jobs, np.inf), np.empty(jobs + 1, np.int32), np.empty(jobs + 1),
        np.empty((jobs + 1, n), np.int64), np.empty(jobs + 1, np.int32), np.zeros(jobs, np.int64), state,
        np.empty((2, width)), np.empty((EXACT_MAX, width), np.bool_),
    )  # fmt: skip


@inner()
def _lean(c, edges, gangs, stock, boost, seats, trial, bench):
    """Find which sizes of groups had better go first in class c: that suits classes differently."""
    n = seats.members[c]
    mine = seats.member[seats.start[c] : seats.start[c] + n]
    for b in range(1, len(boost)):
        _in_order(mine, n, seats.won, edges.hours, gangs.level, boost, b, trial.order)
        pack(c, trial.order, n, seats.won, edges.hours, gangs, stock, bench, trial.cost)
        total, sound = 0.0, True
        for x in range(n):
            j = mine[x]
            sound = sound and trial.cost[j] <= edges.worth[seats.won[j]]
            total += edges.worth[seats.won[j]] - trial.cost[j]
        if sound and total > seats.total[c]:
            seats.total[c], seats.bias[c] = total, b
            for x in range(n):
                seats.cost[mine[x]] = trial.cost[mine[x]]


@inner()
def _ask_around(edges, guess, gangs, won, hopes):
    """Who is left out, and hopes most of each class."""
    job, promise = hopes.job, hopes.promise
    start, kind, devices = edges.start, edges.kind, gangs.devices
    job[:] = -1
    promise[:] = -np.inf
    for j in range(len(won)):
        if won[j] >= 0:
            continue
        for e in range(start[j], start[j + 1]):
            c, d = kind[e], guess[e] / devices[j]
            if guess[e] <= 0 or d <= promise[c, CANDIDATES - 1]:
                continue
            y = CANDIDATES - 1
            while y > 0 and promise[c, y - 1] < d:
                promise[c, y], job[c, y] = promise[c, y - 1], job[c, y - 1]
                y -= 1
            promise[c, y], job[c, y] = d, j


@inner()
def _choose(c, small, edges, guess, stock, seats, hopes, trial):
    """Choose class c and some beside it, where its members or candidates could go as well: how many.

    Beside a `small` one only small ones.
    """
    trial.kind[0], ruins = c, 1
    wish = 1 + _draw(trial.state) % (RUINS_SMALL if small else RUINS)
    for _ in range(2 * RUINS_SMALL):
        if ruins >= wish:
            break
        pick = _draw(trial.state)
        if seats.members[c] > 0 and (pick & 1 == 0 or hopes.job[c, 0] < 0):
            j = seats.member[seats.start[c] + (pick >> 1) % seats.members[c]]
        else:
            j = hopes.job[c, (pick >> 1) % 8]
            if j < 0:
                continue
        n = edges.start[j + 1] - edges.start[j]
        e = edges.start[j] + (pick >> 8) % n
        other = edges.start[j] + (pick >> 16) % n
        if guess[other] > guess[e]:
            e = other
        d = edges.kind[e]
        new = guess[e] > 0 and not (small and stock.device_start[d + 1] - stock.device_start[d] > EXACT_MAX)
        for y in range(ruins):
            new = new and d != trial.kind[y]
        if new:
            trial.kind[ruins] = d
            ruins += 1
    return ruins


@inner()
def _take_out(ruins, small, trials, gangs, stock, seats, hopes, trial):
    """Take some winners out of the chosen classes: (jobs in the pool, what the classes are worth now)."""
    share = (SHARE_SMALL if small else SHARE) + (1.0 - SHARE_SMALL) * _chance(trial.state) ** 2
    n, before = 0, 0.0
    for y in range(ruins):
        c = trial.kind[y]
        before += seats.total[c]
        kept = 0
        for m in range(len(stock.size)):
            trial.room[y, m] = stock.capacity[c, m] - seats.used[c, m]
        for x in range(seats.start[c], seats.start[c] + seats.members[c]):
            j = seats.member[x]
            if _chance(trial.state) < share:
                trial.pool[n] = j
                n += 1
                for m in range(gangs.level[j] + 1):
                    trial.room[y, m] += gangs.devices[j]
            else:
                trial.won[j] = seats.won[j]
                trial.lists[y, kept] = j
                kept += 1
        trial.counts[y] = kept
        for x in range(CANDIDATES):
            j = hopes.job[c, x]
            if j >= 0 and seats.won[j] < 0 and trial.stamp[j] != trials:
                trial.stamp[j] = trials
                trial.pool[n] = j
                n += 1
    return n, before


@inner()
def _look_up(n, ruins, edges, trial):
    """Find the pool's edges to the chosen classes."""
    for x in range(n):
        trial.won[trial.pool[x]] = -1
        for y in range(ruins):
            trial.via[x, y] = _edge(edges, trial.pool[x], trial.kind[y])


@inner()
def _put_in(n, ruins, edges, guess, gangs, trial):
    """Put the pool into the classes, by what a device is worth to a job, disturbed."""
    for x in range(n):
        j = trial.pool[x]
        trial.key[x] = np.inf
        noise = 0.7 + 0.6 * _chance(trial.state)
        for y in range(ruins):
            e = trial.via[x, y]
            if e >= 0:
                trial.key[x] = min(trial.key[x], -guess[e] / gangs.devices[j] * noise)
    for x in np.argsort(trial.key[:n]):
        j = trial.pool[x]
        best, at = 0.0, -1
        for y in range(ruins):
            e = trial.via[x, y]
            if e >= 0 and guess[e] > best and _fits(y, j, gangs, trial):
                best, at = guess[e], y
        if at >= 0:
            trial.won[j] = trial.via[x, at]
            _insert(trial.lists[at], trial.counts[at], j, edges.hours, trial.won)
            trial.counts[at] += 1
            for m in range(gangs.level[j] + 1):
                trial.room[at, m] -= gangs.devices[j]


@inner()
def _fits(y, j, gangs, trial):
    """Whether there is room for job j in the trial's class y."""
    for m in range(gangs.level[j] + 1):  # noqa: SIM110 - numba compiles no generator here
        if trial.room[y, m] < gangs.devices[j]:
            return False
    return True


@inner()
def _choose_best(y, n, ruins, edges, guess, price, gangs, stock, trial):
    """Put those of the pool into the trial's class y that are worth most there in all, beside who stayed.

    Exact, by dynamic programming over the devices used, where offers can be divided and what a job would be
    worth in the classes to come is as guessed: with the longest hours first, what a job's devices cost hangs
    on nothing but how many those before it use.
    """
    c, kept = trial.kind[y], trial.counts[y]
    total = kept
    spread = NOISE * _chance(trial.state) ** 2
    for x in range(kept):
        trial.order[x] = trial.lists[y, x]
        trial.key[trial.order[x]] = np.inf
    for x in range(n):
        j, e = trial.pool[x], trial.via[x, y]
        if trial.won[j] >= 0 or e < 0 or guess[e] <= 0 or total == EXACT_MAX:
            continue
        other = 0.0
        for z in range(y + 1, ruins):
            f = trial.via[x, z]
            if f >= 0:
                other = max(other, guess[f] - gangs.devices[j] * price[trial.kind[z], gangs.level[j]])
        trial.won[j] = e
        trial.key[j] = (edges.worth[e] - other) * (1.0 + spread * (2.0 * _chance(trial.state) - 1.0))
        _insert(trial.order, total, j, edges.hours, trial.won)
        total += 1
    q = _weigh(c, total, edges, gangs, stock, trial)
    trial.counts[y] = 0
    for x in range(total - 1, -1, -1):
        j = trial.order[x]
        if trial.key[j] == np.inf:
            q -= gangs.devices[j]
        elif trial.chosen[x, q] and _fits(y, j, gangs, trial):
            q -= gangs.devices[j]
            for m in range(gangs.level[j] + 1):
                trial.room[y, m] -= gangs.devices[j]
        else:
            q -= gangs.devices[j] if trial.chosen[x, q] else 0
            trial.won[j] = -1
    for x in range(total):
        j = trial.order[x]
        if trial.won[j] >= 0:
            trial.lists[y, trial.counts[y]] = j
            trial.counts[y] += 1


@inner()
def _weigh(c, total, edges, gangs, stock, trial):
    """Fill `chosen` for the jobs in `order`: the devices that the best of them use in all.

    `key`, by job: what it is worth; infinite where it must be among them.
    """
    first = stock.device_start[c]
    room = min(stock.device_start[c + 1] - first, trial.best.shape[1] - 1)
    asks = stock.ask_sum[first : first + room + 1]
    trial.best[0] = -np.inf
    trial.best[0, 0] = 0.0
    now, chosen = 0, trial.chosen
    for x in range(total):
        j = trial.order[x]
        old, new = trial.best[now], trial.best[1 - now]
        k, hours, worth = gangs.devices[j], edges.hours[trial.won[j]], trial.key[j]
        forced = worth == np.inf
        if forced:
            worth = edges.worth[trial.won[j]]
        for q in range(min(k, room + 1)):
            new[q] = -np.inf if forced else old[q]
            chosen[x, q] = False
        for q in range(k, room + 1):
            gained = old[q - k] + worth - hours * (asks[q] - asks[q - k])
            stays = -np.inf if forced else old[q]
            chosen[x, q] = gained > stays
            new[q] = max(gained, stays)
        now = 1 - now
    return np.argmax(trial.best[now, : room + 1])


@inner()
def _judge(ruins, before, edges, gangs, stock, boost, seats, trial, bench):
    """Whether the trial's classes, packed, are worth more than before.

    Most are not, and that can be seen without packing: devices never cost less than where offers can be
    divided.
    """
    hoped = 0.0
    for y in range(ruins):
        n = trial.counts[y]
        trial.total[y] = _at_most(trial.kind[y], trial.lists[y], n, edges, gangs, stock, trial.won)
        hoped += trial.total[y]
    least = before + 1e-9 * abs(before) + 1e-12
    for y in range(ruins):
        if hoped <= least:
            return False
        c, n = trial.kind[y], trial.counts[y]
        hoped -= trial.total[y]
        trial.bias[y] = seats.bias[c]
        pick = _draw(trial.state)
        if pick & 3 == 0:
            trial.bias[y] = (pick >> 2) % len(boost)
        _in_order(trial.lists[y], n, trial.won, edges.hours, gangs.level, boost, trial.bias[y], trial.order)
        pack(c, trial.order, n, trial.won, edges.hours, gangs, stock, bench, trial.cost)
        trial.total[y] = 0.0
        for x in range(n):
            j = trial.lists[y, x]
            trial.total[y] += max(0.0, edges.worth[trial.won[j]] - trial.cost[j])
        hoped += trial.total[y]
    return hoped > least


@inner()
def _at_most(c, jobs, n, edges, gangs, stock, won):
    """What ``jobs[:n]``, longest hours first, would be worth in class c less their cost, if offers could be
    divided."""
    total, at = 0.0, stock.device_start[c]
    worth, hours, asks, devices = edges.worth, edges.hours, stock.ask_sum, gangs.devices
    for x in range(n):
        e, k = won[jobs[x]], devices[jobs[x]]
        total += max(0.0, worth[e] - hours[e] * (asks[at + k] - asks[at]))
        at += k
    return total


@inner()
def _keep(n, ruins, edges, gangs, seats, trial):
    """Make the trial the plan."""
    for x in range(n):
        seats.won[trial.pool[x]] = -1
    for y in range(ruins):
        c = trial.kind[y]
        seats.members[c] = 0
        seats.used[c] = 0
        seats.bias[c] = trial.bias[y]
        seats.total[c] = trial.total[y]
        for x in range(trial.counts[y]):
            j = trial.lists[y, x]
            if trial.cost[j] >= edges.worth[trial.won[j]]:
                seats.won[j] = -1
                trial.won[j] = -1
                continue
            seats.won[j] = trial.won[j]
            seats.cost[j] = trial.cost[j]
            seats.member[seats.start[c] + seats.members[c]] = j
            seats.members[c] += 1
            for m in range(gangs.level[j] + 1):
                seats.used[c, m] += gangs.devices[j]


@inner()
def _parts_of(edges, gangs, stock, boost, seats, order, bench):
    """The plan's parts: rows (job, offer, devices)."""
    rows = np.empty((len(bench.parts), 3), np.int64)
    written = 0
    for c in range(len(seats.members)):
        filled = _settle(c, edges, gangs, stock, boost, seats, order, bench)
        for x in range(filled):
            for y in range(3):
                rows[written, y] = bench.parts[x, y]
            written += 1
    return rows[:written]


@inner()
def _in_order(jobs, n, won, hours, level, boost, bias, order):
    """The jobs as they are packed, in `order`: longest hours first, larger groups before by `boost`."""
    for x in range(n):
        j = jobs[x]
        h = hours[won[j]] * boost[bias, level[j]]
        z = x
        while z > 0 and hours[won[order[z - 1]]] * boost[bias, level[order[z - 1]]] < h:
            order[z] = order[z - 1]
            z -= 1
        order[z] = j


@inner()
def _insert(jobs, n, j, hours, won):
    """Put j among ``jobs[:n]``, longest hours first."""
    h, z = hours[won[j]], n
    while z > 0 and hours[won[jobs[z - 1]]] < h:
        jobs[z] = jobs[z - 1]
        z -= 1
    jobs[z] = j


@inner(inline="always")
def _edge(edges, j, c):
    """The edge of job j to class c, or -1."""
    kind, low, last = edges.kind, edges.start[j], edges.start[j + 1]
    high = last
    while low < high:
        middle = (low + high) // 2
        if kind[middle] < c:
            low = middle + 1
        else:
            high = middle
    return low if low < last and kind[low] == c else -1


@inner(inline="always")
def _draw(state):
    """A random whole number below 2 ** 31."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return np.int64(state[0] >> np.uint64(33))


@inner(inline="always")
def _chance(state):
    """A random number from 0 on and below 1."""
    return _draw(state) / 2147483648.0
