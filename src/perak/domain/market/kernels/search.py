"""Search for a better plan, by simulated annealing over chains of moves."""

from __future__ import annotations

import numpy as np
from numba import njit

from perak.domain.market.kernels.chains import draw, hope_of, list_row, move
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.gangs import pack
from perak.domain.market.kernels.seats import lean, settle, weigh

COLD = 0.05
"""The last share of the trials, in which only what is better stands."""
ASKED_EVERY = 2
"""Trials, by job, after which those left out are asked anew what they hope for."""


@njit(cache=True, error_model="numpy")
def settle_all(gangs, stock, boost, leaning, seats, trial, bench, rows):
    """Pack the plan in `seats` into `rows`, (job, offer, devices): how many there are.

    Where `leaning`, find first what suits each class; who does not fit, or costs more than it is worth,
    leaves.
    """
    written = 0
    for c in range(len(stock.start) - 1):
        filled = settle(c, gangs, stock, boost, seats, bench)
        if leaning:
            lean(c, gangs, stock, boost, seats, trial.cost, bench)
            continue
        for x in range(filled):
            for y in range(3):
                rows[written, y] = bench.parts[x, y]
            written += 1
    return written


@njit(cache=True, error_model="numpy")
def anneal(trials, edges, guess, price, gangs, stock, boost, live, heat, seats, hopes, trial, bench):
    """Improve the packed plan in `seats` by so many trials: how many stood.

    Simulated annealing (Kirkpatrick et al. 1983): a job drawn at random, of `live`, moves to another class,
    with whoever it pushes out; the trial stands if welfare grew, or fell by little, which is the less likely
    the more it fell and the later it is. `heat`, in money: the mean loss that is put up with at first.
    `guess`: an edge's worth less about what its devices cost; `price`, [class, level]: what bids made of a
    device beyond that. `boost`, by bias and level: larger groups may be packed before smaller ones of longer
    hours, where that leaves fewer of them without cheap devices.
    """
    stood = 0
    for j in range(len(trial.won)):
        trial.won[j] = seats.won[j]
    for c in range(len(seats.total)):
        weigh(c, stock, seats)
    won, touched, jobs = seats.won, trial.touched, len(live)
    for t in range(trials):
        if t % (ASKED_EVERY * jobs) == 0:
            _ask_around(edges, guess, gangs, won, hopes)
        j = live[draw(trial.state) % jobs]
        e = _drawn_to(j, edges, guess, price, gangs, trial)
        if e == won[j] or guess[e] <= 0:
            continue
        # Minus its logarithm has the mean of 1 that Metropolis et al. (1953) want for a loss to stand.
        luck = -np.log((draw(trial.state) + 1.0) / 2147483648.0)
        loss = luck * heat * max(0.0, 1.0 - t / trials - COLD)
        if move(j, e, edges, guess, gangs, stock, seats, hopes, trial) and _judge(
            loss, gangs, stock, boost, seats, trial, bench
        ):
            _keep(edges, gangs, stock, seats, trial)
            stood += 1
        for x in range(trial.ends[1]):
            trial.won[touched[x]] = won[touched[x]]
    return stood


@inner()
def _drawn_to(j, edges, guess, price, gangs, trial):
    """Of two of job j's edges, drawn at random, the one that it would gain more by, with prices."""
    kind, k, m = edges.kind, gangs.devices[j], gangs.level[j]
    n = edges.start[j + 1] - edges.start[j]
    e, f = edges.start[j] + draw(trial.state) % n, edges.start[j] + draw(trial.state) % n
    return e if guess[e] - k * price[kind[e], m] >= guess[f] - k * price[kind[f], m] else f


@inner()
def _ask_around(edges, guess, gangs, won, hopes):
    """Who is left out, and hopes most of each class."""
    job, promise = hopes.job, hopes.promise
    start, kind, devices = edges.start, edges.kind, gangs.devices
    job[:] = -1
    promise[:] = -np.inf
    last = job.shape[1] - 1
    for j in range(len(won)):
        if won[j] >= 0:
            continue
        for e in range(start[j], start[j + 1]):
            c, d = kind[e], guess[e] / devices[j]
            if guess[e] <= 0 or d <= promise[c, last]:
                continue
            y = last
            while y > 0 and promise[c, y - 1] < d:
                promise[c, y], job[c, y] = promise[c, y - 1], job[c, y - 1]
                y -= 1
            promise[c, y], job[c, y] = d, j


@inner()
def _judge(loss, gangs, stock, boost, seats, trial, bench):
    """Whether the trial's classes are worth more than before, or less by no more than `loss`.

    Most are not, and that can be seen without packing: devices never cost less than where offers can be
    divided.
    """
    kind, total, hoped, rows = trial.kind, trial.total, trial.hoped, trial.ends[0]
    before, now = 0.0, 0.0
    for y in range(rows):
        before += seats.total[kind[y]]
        hoped[y] = hope_of(y, stock, seats, trial)
        now += hoped[y]
    least = before + 1e-9 * abs(before) + 1e-12 - loss
    for y in range(rows):
        if now <= least:
            return False
        trial.bias[y] = seats.bias[kind[y]]
        pick = draw(trial.state)
        if pick & 3 == 0:
            trial.bias[y] = (pick >> 2) % len(boost)
        _pack(y, gangs, stock, boost, seats, trial, bench)
        now += total[y] - hoped[y]
    return now > least


@inner()
def _pack(y, gangs, stock, boost, seats, trial, bench):
    """Pack row y: what it is worth less its cost, in `total`."""
    jobs, worth, cost, n = trial.list, trial.list_worth, trial.cost, list_row(y, seats, trial)
    pack(trial.kind[y], jobs, trial.list_hours, n, boost[trial.bias[y]], gangs, stock, bench, cost)
    total = 0.0
    for x in range(n):
        total += max(0.0, worth[x] - cost[jobs[x]])
    trial.total[y] = total


@inner()
def _keep(edges, gangs, stock, seats, trial):
    """Make the trial the plan."""
    won, cost, used, members = seats.won, seats.cost, seats.used, seats.members
    for x in range(trial.ends[1]):
        won[trial.touched[x]] = trial.won[trial.touched[x]]
    for y in range(trial.ends[0]):
        c, jobs = trial.kind[y], trial.list
        n, first = seats.start[c], seats.start[c]
        for m in range(used.shape[1]):
            used[c, m] = 0
        many = list_row(y, seats, trial)
        for x in range(many):
            j = jobs[x]
            if trial.cost[j] >= trial.list_worth[x]:
                won[j] = -1
                trial.won[j] = -1
                continue
            cost[j], seats.member[n], seats.hours[n] = trial.cost[j], j, edges.hours[won[j]]
            seats.worth[n], seats.devices[n] = trial.list_worth[x], gangs.devices[j]
            n += 1
            for m in range(gangs.level[j] + 1):
                used[c, m] += gangs.devices[j]
        members[c], seats.bias[c] = n - first, trial.bias[y]
        seats.total[c] = trial.total[y]
        weigh(c, stock, seats)
