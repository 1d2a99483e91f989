"""A plan by class: who sits where, packed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.compiling import inner
from perak.domain.market.kernels.gangs import pack
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock


class Seats(NamedTuple):
    """A plan: the edge that each job won, or -1; and by class its members, longest hours first, with what
    they are."""

    won: Ints
    cost: Floats
    """By job: the asks of its devices."""
    member: Ints
    hours: Floats
    worth: Floats
    devices: Ints
    before: Ints
    """The first device that the member would have, if offers could be divided."""
    gain: Floats
    """What it is worth less what these devices cost, or nothing."""
    start: Ints
    """Each class's first place in these six."""
    members: Ints
    used: Ints
    """[class, level]: devices of jobs of the level and above."""
    total: Floats
    """By class: what its jobs are worth less their cost."""
    hoped: Floats
    """By class: what they would be, if offers could be divided."""
    bias: Ints
    """By class: the row of `boost` that it is packed by."""


def seats_of(edges: Edges, gangs: Gangs, stock: Stock, won: Ints) -> Seats:
    """The plan that `won` says, not packed yet. `won` is changed with it."""
    classes, levels = stock.capacity.shape
    start = stock.device_start + np.arange(classes + 1)
    winner = np.flatnonzero(won >= 0)
    edge = won[winner]
    order = np.lexsort((-edges.hours[edge], edges.kind[edge]))
    winner, edge = winner[order], edge[order]
    kind = edges.kind[edge].astype(np.int64)
    members = np.bincount(kind, minlength=classes).astype(np.int64)
    place = start[kind] + np.arange(len(kind)) - (np.cumsum(members) - members)[kind]
    places = int(start[-1]) + 1
    member, devices = np.zeros(places, np.int64), np.zeros(places, np.int64)
    hours, worth = np.zeros(places), np.zeros(places)
    member[place], hours[place], worth[place] = winner, edges.hours[edge], edges.worth[edge]
    devices[place] = gangs.devices[winner]
    used = np.zeros((classes, levels), np.int64)
    for level in range(levels):
        reaches = gangs.level[winner] >= level
        np.add.at(used[:, level], kind[reaches], gangs.devices[winner[reaches]])
    return Seats(
        won=won, cost=np.full(len(won), np.inf), member=member, hours=hours, worth=worth, devices=devices,
        before=np.zeros(places, np.int64), gain=np.zeros(places), start=start, members=members, used=used,
        total=np.zeros(classes), hoped=np.zeros(classes), bias=np.zeros(classes, np.int64),
    )  # fmt: skip


@inner()
def settle(c, gangs, stock, boost, seats, bench):
    """Pack class c until all who are in it fit and are worth their cost: how many parts."""
    member, hours, worth, devices = seats.member, seats.hours, seats.worth, seats.devices
    won, cost, used, first = seats.won, seats.cost, seats.used, seats.start[c]
    while True:
        n = seats.members[c]
        filled = pack(c, member[first:], hours[first:], n, boost[seats.bias[c]], gangs, stock, bench, cost)
        kept, total = first, 0.0
        for x in range(first, first + n):
            j = member[x]
            if cost[j] <= worth[x]:
                member[kept], hours[kept], worth[kept], devices[kept] = j, hours[x], worth[x], devices[x]
                total += worth[x] - cost[j]
                kept += 1
            else:
                won[j] = -1
                for m in range(gangs.level[j] + 1):
                    used[c, m] -= devices[x]
        seats.members[c], seats.total[c] = kept - first, total
        if kept == first + n:
            return filled


@inner()
def lean(c, gangs, stock, boost, seats, other, bench):
    """Find which sizes of groups had better go first in class c: that suits classes differently.

    `other`: room for costs, by job.
    """
    n, first = seats.members[c], seats.start[c]
    member, worth, cost, hours = seats.member, seats.worth, seats.cost, seats.hours
    for b in range(1, len(boost)):
        pack(c, member[first:], hours[first:], n, boost[b], gangs, stock, bench, other)
        total, sound = 0.0, True
        for x in range(first, first + n):
            j = member[x]
            sound = sound and other[j] <= worth[x]
            total += worth[x] - other[j]
        if sound and total > seats.total[c]:
            seats.total[c], seats.bias[c] = total, b
            for x in range(first, first + n):
                cost[member[x]] = other[member[x]]


@inner()
def weigh(c, stock, seats):
    """Find what the members of class c are worth less their cost, if offers could be divided."""
    first, at, asks, total = seats.start[c], stock.device_start[c], stock.ask_sum, 0.0
    for x in range(first, first + seats.members[c]):
        after = at + seats.devices[x]
        gain = max(0.0, seats.worth[x] - seats.hours[x] * (asks[after] - asks[at]))
        seats.before[x], seats.gain[x] = at, gain
        total += gain
        at = after
    seats.hoped[c] = total
