"""Ruin and recreate over the classes of a market."""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.gangs import pack, slack_of

CANDIDATES = 24
"""Jobs that are left out, by class, that a trial of `search` may let in."""


@njit(cache=True)
def search(
    start,
    kind,
    worth,
    hours,
    guess,
    k,
    per_node,
    level,
    table,
    on,
    op,
    by_size,
    offer_start,
    member_start,
    capacity,
    won,
    boost,
    trials_max,
    seed,
):
    """Pack every class, then improve the plan by what it is truly worth: (parts, asks by job, trials, gains).

    Ruin and recreate (Schrimpf et al. 2000): of one to three classes that share jobs some winners are taken
    out; they and the best of those left out are put in again by what a device is worth to them, disturbed at
    random; the classes are packed, and the trial stands if welfare grew. `guess`: an edge's worth less about
    what its devices cost. `boost`, by bias and level: larger groups may be packed before smaller ones of
    longer
    hours, where that leaves fewer of them without cheap devices. `won` is changed in place; parts are
    (job, offer, devices).
    """
    jobs, (classes, levels) = len(k), capacity.shape
    member = np.empty(member_start[-1] + 1, np.int32)
    members = np.zeros(classes, np.int64)
    used = np.zeros((classes, levels), np.int64)
    total = np.zeros(classes)
    cost, new_cost = np.full(jobs, np.inf), np.full(jobs, np.inf)
    free, nxt = np.empty(len(on), np.int64), np.empty(len(on), np.int64)
    slack = np.empty(levels, np.int64)
    load, moved = np.empty(len(on)), np.empty(len(on), np.int64)
    groups = 0
    for j in range(jobs):
        groups += 2 * (k[j] // max(1, per_node[j]))
    parts = np.empty((groups + 1, 3), np.int64)
    order = np.argsort(-hours[np.maximum(won, 0)])
    for j in order:
        if won[j] >= 0:
            c = kind[won[j]]
            member[member_start[c] + members[c]] = j
            members[c] += 1
    for c in range(classes):
        # Who does not fit, or costs more than it is worth, leaves; the others are packed anew.
        n = -1
        while n != members[c]:
            n = members[c]
            slack_of(c, member, member_start[c], n, k, level, capacity, slack)
            pack(
                offer_start[c], offer_start[c + 1], member, member_start[c], n, won, hours, k, per_node,
                level, slack,
                table, on, op, by_size, free, nxt, load, moved, parts, cost,
            )  # fmt: skip
            members[c] = _drop(member, member_start[c], n, won, worth, cost)
        for x in range(member_start[c], member_start[c] + members[c]):
            j = member[x]
            total[c] += worth[won[j]] - cost[j]
            for m in range(level[j] + 1):
                used[c, m] += k[j]
    bias = np.zeros(classes, np.int64)
    state = np.uint64(seed * 2 + 1)
    stamp = np.zeros(jobs, np.int64)
    new_won = won.copy()
    pool, key, via = np.empty(jobs + 1, np.int32), np.empty(jobs + 1), np.empty((jobs + 1, 3), np.int64)
    kept_in = np.empty((3, jobs + 1), np.int32)
    counts = np.zeros(3, np.int64)
    room = np.zeros((3, levels), np.int64)
    ruined = np.zeros(3, np.int64)
    sums = np.zeros(3)
    biases = np.zeros(3, np.int64)
    candidate = np.full((classes, CANDIDATES), -1, np.int32)
    promise = np.full((classes, CANDIDATES), -np.inf)
    for c in range(classes):  # Which sizes of groups go first suits classes differently.
        for b in range(1, len(boost)):
            n = members[c]
            for x in range(n):
                kept_in[0, x] = member[member_start[c] + x]
            _sort_by_hours(kept_in, 0, n, won, hours, level, boost, b)
            slack_of(c, kept_in[0], 0, n, k, level, capacity, slack)
            pack(
                offer_start[c], offer_start[c + 1], kept_in[0], 0, n, won, hours, k, per_node, level,
                slack, table,
                on, op, by_size, free, nxt, load, moved, parts, new_cost,
            )  # fmt: skip
            sums[0], sound = 0.0, True
            for x in range(n):
                j = kept_in[0, x]
                sound = sound and new_cost[j] <= worth[won[j]]
                sums[0] += worth[won[j]] - new_cost[j]
            if sound and sums[0] > total[c]:
                total[c], bias[c] = sums[0], b
                for x in range(n):
                    member[member_start[c] + x] = kept_in[0, x]
                    cost[kept_in[0, x]] = new_cost[kept_in[0, x]]
    trials, gains = 0, 0
    while trials < trials_max:
        if trials % (2 * classes) == 0:  # Who is left out, and hopes most of each class.
            candidate[:] = -1
            promise[:] = -np.inf
            for j in range(jobs):
                if won[j] >= 0:
                    continue
                for e in range(start[j], start[j + 1]):
                    c, d = kind[e], guess[e] / k[j]
                    if guess[e] <= 0 or d <= promise[c, CANDIDATES - 1]:
                        continue
                    y = CANDIDATES - 1
                    while y > 0 and promise[c, y - 1] < d:
                        promise[c, y], candidate[c, y] = promise[c, y - 1], candidate[c, y - 1]
                        y -= 1
                    promise[c, y], candidate[c, y] = d, j
        c = trials % classes
        trials += 1
        ruined[0], ruins = c, 1
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        wish = 1 + (state >> np.uint64(40)) % np.uint64(3)
        for _ in range(4):  # Classes beside it: where its members or candidates could go as well.
            if ruins >= wish:
                break
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            pick = np.int64(state >> np.uint64(33))
            if members[c] > 0 and (pick & 1 == 0 or candidate[c, 0] < 0):
                j = member[member_start[c] + pick % members[c]]
            else:
                j = candidate[c, pick % 8]
                if j < 0:
                    continue
            n = start[j + 1] - start[j]
            e = start[j] + (pick >> 8) % n
            other = start[j] + (pick >> 16) % n
            if guess[other] > guess[e]:
                e = other
            new = guess[e] > 0
            for y in range(ruins):
                new = new and kind[e] != ruined[y]
            if new:
                ruined[ruins] = kind[e]
                ruins += 1
        # Some winners are taken out; the others keep their classes.
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        share = 0.05 + 0.6 * (np.float64(state >> np.uint64(40)) / 16777216.0) ** 2
        n, before = 0, 0.0
        for y in range(ruins):
            c = ruined[y]
            before += total[c]
            counts[y] = 0
            for m in range(levels):
                room[y, m] = capacity[c, m] - used[c, m]
            for x in range(member_start[c], member_start[c] + members[c]):
                j = member[x]
                state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                if np.float64(state >> np.uint64(40)) / 16777216.0 < share:
                    pool[n] = j
                    n += 1
                    for m in range(level[j] + 1):
                        room[y, m] += k[j]
                else:
                    kept_in[y, counts[y]] = j
                    counts[y] += 1
            for x in range(CANDIDATES):
                j = candidate[c, x]
                if j >= 0 and won[j] < 0 and stamp[j] != trials:
                    stamp[j] = trials
                    pool[n] = j
                    n += 1
        for x in range(n):
            j = pool[x]
            key[x] = -np.inf
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            noise = 0.7 + 0.6 * (np.float64(state >> np.uint64(40)) / 16777216.0)
            for y in range(ruins):
                e = _edge(start, kind, j, ruined[y])
                via[x, y] = e
                if e >= 0:
                    key[x] = max(key[x], guess[e] / k[j] * noise)
        ranks = np.argsort(-key[:n])
        for rank in range(n):
            x = ranks[rank]
            j = pool[x]
            best, at = 0.0, -1
            for y in range(ruins):
                e = via[x, y]
                if e < 0 or guess[e] <= best:
                    continue
                fits = True
                for m in range(level[j] + 1):
                    fits = fits and room[y, m] >= k[j]
                if fits:
                    best, at = guess[e], y
            if at >= 0:
                kept_in[at, counts[at]] = j
                counts[at] += 1
                new_won[j] = via[x, at]
                for m in range(level[j] + 1):
                    room[at, m] -= k[j]
            else:
                new_won[j] = -1
        after = 0.0
        for y in range(ruins):
            c = ruined[y]
            biases[y] = bias[c]
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            if (state >> np.uint64(40)) & np.uint64(3) == 0:
                biases[y] = np.int64((state >> np.uint64(42)) % np.uint64(len(boost)))
            _sort_by_hours(kept_in, y, counts[y], new_won, hours, level, boost, biases[y])
            slack_of(c, kept_in[y], 0, counts[y], k, level, capacity, slack)
            pack(
                offer_start[c],
                offer_start[c + 1],
                kept_in[y],
                0,
                counts[y],
                new_won,
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
                new_cost,
            )
            sums[y] = 0.0
            for x in range(counts[y]):
                j = kept_in[y, x]
                sums[y] += max(0.0, worth[new_won[j]] - new_cost[j])
            after += sums[y]
        if after > before + 1e-9 * abs(before) + 1e-12:
            gains += 1
            for x in range(n):
                won[pool[x]] = -1
            for y in range(ruins):
                c = ruined[y]
                members[c] = 0
                used[c] = 0
                bias[c] = biases[y]
                total[c] = sums[y]
                for x in range(counts[y]):
                    j = kept_in[y, x]
                    if new_cost[j] >= worth[new_won[j]]:
                        won[j] = -1
                        new_won[j] = -1
                        continue
                    won[j] = new_won[j]
                    cost[j] = new_cost[j]
                    member[member_start[c] + members[c]] = j
                    members[c] += 1
                    for m in range(level[j] + 1):
                        used[c, m] += k[j]
        else:
            for x in range(n):
                new_won[pool[x]] = won[pool[x]]
    rows = np.empty((groups + 1, 3), np.int64)
    written = 0
    for c in range(classes):
        n = -1
        while n != members[c]:
            n = members[c]
            slack_of(c, member, member_start[c], n, k, level, capacity, slack)
            filled = pack(
                offer_start[c], offer_start[c + 1], member, member_start[c], n, won, hours, k, per_node,
                level, slack,
                table, on, op, by_size, free, nxt, load, moved, parts, cost,
            )  # fmt: skip
            members[c] = _drop(member, member_start[c], n, won, worth, cost)
        rows[written : written + filled] = parts[:filled]
        written += filled
    return rows[:written], cost, trials, gains


@njit(cache=True)
def _drop(member, at, n, won, worth, cost):
    """Take out of ``member[at : at + n]`` whoever costs more than it is worth there: how many stay."""
    kept = 0
    for x in range(at, at + n):
        j = member[x]
        if cost[j] <= worth[won[j]]:
            member[at + kept] = j
            kept += 1
        else:
            won[j] = -1
    return kept


@njit(cache=True)
def _edge(start, kind, j, c):
    """The edge of job j to class c, or -1; a job's edges are in the order of their classes."""
    low, high = start[j], start[j + 1]
    while low < high:
        middle = (low + high) // 2
        if kind[middle] < c:
            low = middle + 1
        else:
            high = middle
    return low if low < start[j + 1] and kind[low] == c else -1


@njit(cache=True)
def _sort_by_hours(lists, y, n, won, hours, level, boost, bias):
    """Longest first, larger groups before by `boost`; those that stayed are in order already: few are
    moved."""
    for x in range(1, n):
        j = lists[y, x]
        h = hours[won[j]] * boost[bias, level[j]]
        z = x
        while z > 0 and hours[won[lists[y, z - 1]]] * boost[bias, level[lists[y, z - 1]]] < h:
            lists[y, z] = lists[y, z - 1]
            z -= 1
        lists[y, z] = j
