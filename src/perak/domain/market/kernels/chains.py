"""Chains of moves: a job goes to another class, and whoever it pushes out goes on to a third."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.seats import Seats
from perak.domain.market.kernels.shapes import Stock

ROWS = 6
"""Classes of a chain, at most."""
PUSHED_MAX = 6
"""Jobs that one may push out of a class."""
LOOKS = 16
"""Edges, from one drawn at random on, at which a job that was pushed out looks for another place."""
INVITED = 3
"""Jobs left out that are tried, drawn at random, where a class of the chain has free devices."""
MOVES_MAX = 2 + PUSHED_MAX + INVITED
"""Jobs that enter or leave one class in one trial: the first, all whom it pushed out, and the invited."""


class Hopes(NamedTuple):
    """By class: those of the jobs left out that hope most of it, and what a device would be worth to them."""

    job: Ints
    promise: Floats


class Trial(NamedTuple):
    """Another plan for a few classes; what has a row for each of them is theirs."""

    ends: Ints
    """How many classes there are, and how many jobs in `touched`."""
    kind: Ints
    room: Ints
    """[row, level]: devices that are free."""
    leaves: Ints
    """[row, place]: places among the class's members of those who leave, ascending."""
    leaving: Ints
    """By row: how many."""
    enters: Ints
    """[row, place]: jobs that enter, longest hours first; and what they are in the next three."""
    hours: Floats
    worth: Floats
    devices: Ints
    entering: Ints
    total: Floats
    hoped: Floats
    """What the row would be worth less its cost, if offers could be divided."""
    bias: Ints
    won: Ints
    """By job, of all jobs: an edge, or -1. The plan's between trials."""
    cost: Floats
    touched: Ints
    """The jobs that moved, or tried to."""
    list: Ints
    """The jobs of a class, longest hours first; and what they are in the next two."""
    list_hours: Floats
    list_worth: Floats
    state: Ints
    """Of the random numbers."""


def trial_of(stock: Stock, seats: Seats, seed: int) -> Trial:
    """Room for trials."""
    jobs = len(seats.won)
    moves, most = (ROWS, MOVES_MAX), 2 + int(np.diff(stock.device_start).max(initial=0))
    return Trial(
        ends=np.zeros(2, np.int64), kind=np.zeros(ROWS, np.int64),
        room=np.zeros((ROWS, len(stock.size)), np.int64), leaves=np.zeros(moves, np.int64),
        leaving=np.zeros(ROWS, np.int64), enters=np.zeros(moves, np.int64), hours=np.zeros(moves),
        worth=np.zeros(moves), devices=np.zeros(moves, np.int64), entering=np.zeros(ROWS, np.int64),
        total=np.zeros(ROWS), hoped=np.zeros(ROWS), bias=np.zeros(ROWS, np.int64), won=seats.won.copy(),
        cost=np.full(jobs, np.inf), touched=np.zeros(ROWS * MOVES_MAX, np.int64),
        list=np.zeros(most, np.int64), list_hours=np.zeros(most), list_worth=np.zeros(most),
        state=np.array([2 * seed + 1], np.uint64),
    )  # fmt: skip


@inner()
def move(j, e, edges, guess, gangs, stock, seats, hopes, trial):
    """Try to move job j to its edge e: whether there is room, once others are pushed out.

    They go where a job hopes most of those places that have room, to the class that j came from or to
    another, or stay outside. What is free then is for those who were outside.
    """
    ends, kind, was, left = trial.ends, edges.kind, trial.won[j], np.int64(-1)
    ends[0], ends[1], trial.touched[0] = 0, 1, j
    if was >= 0:
        left = np.int64(kind[was])
        y, x = _row(left, stock, seats, trial), seats.start[left]
        while seats.member[x] != j:
            x += 1
        _drop(x - seats.start[left], y, gangs, seats, trial)
    y = _row(np.int64(kind[e]), stock, seats, trial)
    if not _push_out(j, y, gangs, seats, trial):
        return False
    _enter(j, e, y, edges, gangs, trial)
    for x in range(1, ends[1]):
        i = trial.touched[x]
        f = _elsewhere(i, np.int64(kind[e]), left, edges, guess, gangs, stock, seats, trial)
        if f >= 0:
            y = _row(np.int64(kind[f]), stock, seats, trial)
            if y >= 0:
                _enter(i, f, y, edges, gangs, trial)
    for y in range(ends[0]):
        _invite(y, edges, gangs, hopes, trial)
    return True


@inner()
def _row(c, stock, seats, trial):
    """The trial's row of class c, which is as the plan has it if it is new; -1 where these are too many."""
    kind, y = trial.kind, trial.ends[0]
    for x in range(y):
        if kind[x] == c:
            return x
    if y == ROWS:
        return np.int64(-1)
    trial.ends[0], kind[y], trial.leaving[y], trial.entering[y] = y + 1, c, 0, 0
    for m in range(trial.room.shape[1]):
        trial.room[y, m] = stock.capacity[c, m] - seats.used[c, m]
    return y


@inner()
def _push_out(j, y, gangs, seats, trial):
    """Take jobs drawn at random out of row y until job j fits: whether it does."""
    room, level, k = trial.room, gangs.level, gangs.devices[j]
    first, n = seats.start[trial.kind[y]], seats.members[trial.kind[y]]
    for m in range(level[j], -1, -1):
        while room[y, m] < k:
            if trial.ends[1] > PUSHED_MAX or trial.leaving[y] == n:
                return False
            x = draw(trial.state) % n
            begin = x
            # Of too small groups it would leave no room in offers that are large enough.
            while level[seats.member[first + x]] < m or _leaves(x, y, trial):
                x = x + 1 if x + 1 < n else 0
                if x == begin:
                    return False
            trial.touched[trial.ends[1]] = seats.member[first + x]
            trial.ends[1] += 1
            _drop(x, y, gangs, seats, trial)
    return True


@inner()
def _leaves(x, y, trial):
    """Whether who sits at place x of row y's class leaves."""
    for z in range(trial.leaving[y]):  # noqa: SIM110 - numba compiles no generator here
        if trial.leaves[y, z] == x:
            return True
    return False


@inner()
def _elsewhere(i, d, left, edges, guess, gangs, stock, seats, trial):
    """Where job i fits and hopes most: an edge to class `left` or some other, not to class d; or -1."""
    first, n, kind = edges.start[i], edges.start[i + 1] - edges.start[i], edges.kind
    best, at = 0.0, np.int64(-1)
    if left >= 0:
        e = edge_to(left, i, edges)
        if e >= 0 and guess[e] > best and _fits(left, i, gangs, stock, seats, trial):
            best, at = guess[e], e
            if draw(trial.state) & 1 == 0:
                return at
    x = draw(trial.state) % n
    for _ in range(min(n, LOOKS)):
        e = first + x
        x = x + 1 if x + 1 < n else 0
        if guess[e] > best:
            c = np.int64(kind[e])
            if c != d and _fits(c, i, gangs, stock, seats, trial):
                best, at = guess[e], e
    return at


@inner()
def _invite(y, edges, gangs, hopes, trial):
    """Let jobs that are left out into row y, where there is room."""
    c, asked = trial.kind[y], hopes.job
    for _ in range(INVITED):
        if trial.room[y, 0] <= 0:
            break
        i = asked[c, draw(trial.state) % asked.shape[1]]
        if i >= 0 and trial.won[i] < 0 and _fits_in(y, i, gangs, trial):
            e = edge_to(c, i, edges)
            trial.touched[trial.ends[1]] = i
            trial.ends[1] += 1
            _enter(i, e, y, edges, gangs, trial)


@inner()
def _fits(c, j, gangs, stock, seats, trial):
    """Whether there is room for job j in class c, as the trial has it."""
    kind, k, capacity, used = trial.kind, gangs.devices[j], stock.capacity, seats.used
    for y in range(trial.ends[0]):
        if kind[y] == c:
            return _fits_in(y, j, gangs, trial)
    for m in range(gangs.level[j] + 1):  # noqa: SIM110 - as above
        if capacity[c, m] - used[c, m] < k:
            return False
    return True


@inner()
def _fits_in(y, j, gangs, trial):
    """Whether there is room for job j in the trial's row y."""
    k, room = gangs.devices[j], trial.room
    for m in range(gangs.level[j] + 1):  # noqa: SIM110 - as above
        if room[y, m] < k:
            return False
    return True


@inner()
def _drop(x, y, gangs, seats, trial):
    """Let who sits at place x of row y's class leave it."""
    leaves, z = trial.leaves, trial.leaving[y]
    j = seats.member[seats.start[trial.kind[y]] + x]
    while z > 0 and leaves[y, z - 1] > x:
        leaves[y, z] = leaves[y, z - 1]
        z -= 1
    leaves[y, z] = x
    trial.leaving[y] += 1
    trial.won[j] = -1
    for m in range(gangs.level[j] + 1):
        trial.room[y, m] += gangs.devices[j]


@inner()
def _enter(j, e, y, edges, gangs, trial):
    """Let job j have edge e, to the class of row y."""
    jobs, hours, worth, devices = trial.enters, trial.hours, trial.worth, trial.devices
    h, z = edges.hours[e], trial.entering[y]
    while z > 0 and hours[y, z - 1] < h:
        jobs[y, z], hours[y, z] = jobs[y, z - 1], hours[y, z - 1]
        worth[y, z], devices[y, z] = worth[y, z - 1], devices[y, z - 1]
        z -= 1
    jobs[y, z], hours[y, z], worth[y, z], devices[y, z] = j, h, edges.worth[e], gangs.devices[j]
    trial.won[j] = e
    trial.entering[y] += 1
    for m in range(gangs.level[j] + 1):
        trial.room[y, m] -= gangs.devices[j]


@inner()
def hope_of(y, stock, seats, trial):
    """What row y would be worth less its cost, if offers could be divided.

    Those who stay count anew only where they get other devices than before: as far as more or fewer are
    taken by those of longer hours.
    """
    c = trial.kind[y]
    first, device, asks = seats.start[c], stock.device_start[c], stock.ask_sum
    last = first + seats.members[c]
    hours, worth, devices, before, gain = seats.hours, seats.worth, seats.devices, seats.before, seats.gain
    enters, leaves, many, few = 0, 0, trial.entering[y], trial.leaving[y]
    hoped, shift, x = seats.hoped[c], 0, first
    while True:
        if shift == 0:  # All is as before until somebody enters or leaves.
            if enters == many and leaves == few:
                return hoped
            x = last if leaves == few else first + trial.leaves[y, leaves]
            if enters < many:
                x = min(x, _place(trial.hours[y, enters], first, last, hours))
        while enters < many and (x == last or hours[x] < trial.hours[y, enters]):
            k = trial.devices[y, enters]
            at = (device if x == first else before[x - 1] + devices[x - 1]) + shift
            asked = asks[at + k] - asks[at]
            hoped += max(0.0, trial.worth[y, enters] - trial.hours[y, enters] * asked)
            shift += k
            enters += 1
        if x == last:
            return hoped
        k = devices[x]
        if leaves < few and first + trial.leaves[y, leaves] == x:
            hoped -= gain[x]
            shift -= k
            leaves += 1
        elif shift != 0:
            at = before[x] + shift
            hoped += max(0.0, worth[x] - hours[x] * (asks[at + k] - asks[at])) - gain[x]
        x += 1


@inner()
def _place(h, first, last, hours):
    """The first place from `first` to `last` of shorter hours than h."""
    while first < last:
        middle = (first + last) // 2
        if hours[middle] < h:
            last = middle
        else:
            first = middle + 1
    return first


@inner()
def list_row(y, seats, trial):
    """List who would sit in row y's class, longest hours first, with what that is worth: how many."""
    c, jobs, hours, worth = trial.kind[y], trial.list, trial.list_hours, trial.list_worth
    first, n, enters, leaves = seats.start[c], 0, 0, 0
    for x in range(seats.members[c] + 1):
        while enters < trial.entering[y] and (
            x == seats.members[c] or seats.hours[first + x] < trial.hours[y, enters]
        ):
            jobs[n], hours[n], worth[n] = (
                trial.enters[y, enters],
                trial.hours[y, enters],
                trial.worth[y, enters],
            )
            enters += 1
            n += 1
        if x == seats.members[c]:
            break
        if leaves < trial.leaving[y] and trial.leaves[y, leaves] == x:
            leaves += 1
            continue
        jobs[n], hours[n], worth[n] = seats.member[first + x], seats.hours[first + x], seats.worth[first + x]
        n += 1
    return n


@inner()
def edge_to(c, j, edges):
    """The edge of job j to class c, or -1."""
    kind, low, last = edges.kind, edges.start[j], edges.start[j + 1]
    high = last
    while low < high:
        middle = (low + high) // 2
        if kind[middle] < c:
            low = middle + 1
        else:
            high = middle
    return low if low < last and kind[low] == c else np.int64(-1)


@inner()
def draw(state):
    """A random whole number below 2 ** 31."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return np.int64(state[0] >> np.uint64(33))
