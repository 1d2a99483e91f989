"""How long a market is searched for a better plan, and room for that search.

The numbers of trials hang on the market alone, never on a clock, so that the same market has the same plan.
"""

from __future__ import annotations

import numpy as np

from perak.domain.market import kernels
from perak.domain.market.clearing import Floats, Ints
from perak.domain.market.kernels.chains import Hopes, trial_of
from perak.domain.market.kernels.gangs import bench_of
from perak.domain.market.kernels.seats import seats_of
from perak.domain.market.kernels.shapes import Edges, Gangs, Stock

BIASES = (0.0, 0.15, 0.3, 0.6, 1.0)
"""Powers of a group's size by which it may be packed before others: the search finds what suits a class."""
CANDIDATES = 24
"""Jobs that are left out, by class, that a trial may let in."""
LARGE = 64
"""With more devices than that in a class, on the mean, packing takes most of a trial."""
TRIALS_A_JOB = 1300
SEARCH_WORK, SEARCH_WORK_SMALL = 11_000_000, 16_000_000
TRIAL_WORK = 6
"""Trials: so many a job, and no more than this work is enough for (the second: where classes are not LARGE),
where one is TRIAL_WORK and as much as there are jobs and offers in a class on the mean. That is the half
second that a large clearing should take; two for small markets, where it brings four seeds of four within
0.9 % of the best plan known, and the interval between batches allows it."""
PACKED_SHARE = 1 / 40
"""Of the trials in a market of such classes; the others count welfare as if offers could be divided."""
HEAT = 0.03
"""The mean loss that is put up with at first, in what a job gains on the mean."""
HOT_TRIALS = 400
"""That is of use with so many trials a job; with fewer it is less."""


def search(
    edges: Edges, guess: Floats, price: Floats, gangs: Gangs, stock: Stock, won: Ints, *, seed: int
) -> tuple[Ints, int]:
    """A better plan than `won`, by job an edge or -1, which is changed: (rows (job, offer, devices), trials).

    `guess` and `price`: as the loops of `kernels.anneal` have them.
    """
    classes = len(stock.start) - 1
    live = np.flatnonzero(np.diff(edges.start))
    trials = trials_of(jobs=len(live), stock=stock)
    gains = guess[won[won >= 0]]
    heat = HEAT * min(1.0, sum(trials) / (HOT_TRIALS * max(1, len(live))))
    if len(gains):
        heat *= float(gains.mean())
    boost = stock.size.astype(np.float64)[None, :] ** np.array(BIASES)[:, None]
    seats, bench = seats_of(edges, gangs, stock, won), bench_of(stock, gangs)
    hopes = Hopes(job=np.empty((classes, CANDIDATES), np.int64), promise=np.empty((classes, CANDIDATES)))
    trial = trial_of(stock, seats, seed)
    rows, begin, last = np.empty_like(bench.parts), 0, sum(trials)
    for packed, many in zip((False, True), trials, strict=True):
        if packed:
            kernels.settle_all(edges, gangs, stock, boost, True, seats, trial, bench, rows)
        if many:
            kernels.anneal(
                begin, begin + many, last, packed, edges, guess, price, gangs, stock, boost, live, heat,
                seats, hopes, trial, bench,
            )  # fmt: skip
        begin += many
    written = kernels.settle_all(edges, gangs, stock, boost, False, seats, trial, bench, rows)
    found: Ints = rows[:written]
    return found, last


def trials_of(*, jobs: int, stock: Stock) -> tuple[int, int]:
    """Trials that do not pack, and those that do."""
    classes = max(1, len(stock.start) - 1)
    work = TRIAL_WORK + (jobs + len(stock.devices)) // classes
    if stock.device_start[-1] <= LARGE * classes:
        return 0, min(TRIALS_A_JOB * jobs, SEARCH_WORK_SMALL // work)
    trials = min(TRIALS_A_JOB * jobs, SEARCH_WORK // work)
    packed = int(PACKED_SHARE * trials)
    return trials - packed, packed


def promising(edges: Edges, guess: Floats, won: Ints) -> tuple[Edges, Floats, Ints]:
    """The edges that hope for something or were won, with `guess` and `won` of these alone."""
    wanted = guess > 0
    wanted[won[won >= 0]] = True
    kept = np.flatnonzero(wanted)
    few = Edges(
        start=np.searchsorted(kept, edges.start).astype(np.int64), kind=edges.kind.take(kept),
        worth=edges.worth.take(kept), hours=edges.hours.take(kept),
    )  # fmt: skip
    return few, guess.take(kept), np.where(won >= 0, np.searchsorted(kept, won), -1)
