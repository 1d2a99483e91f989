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
from perak.domain.market.kernels.trading import places_of

BIASES = (0.0, 0.15, 0.3, 0.6, 1.0)
"""Powers of a group's size by which it may be packed before others: the search finds what suits a class."""
CANDIDATES = 24
"""Jobs that are left out, by class, that a trial may let in."""
LARGE = 160
"""With more devices than that in a class, on the mean, a trial takes longer than it is worth: there are none,
and a clearing takes less than half a second."""
TRIALS_A_JOB = 2000
SEARCH_WORK = 24_000_000
TRIAL_WORK = 6
"""Trials: so many a job, and no more than this work is enough for, where one is TRIAL_WORK and as much as
there are jobs and offers in a class on the mean. That takes a second or two, as the interval between batches
allows."""
HEAT = 0.045
"""The mean loss that is put up with at first, in what a job gains on the mean."""
HOT_TRIALS = 400
"""That is of use with so many trials a job; with fewer it is less."""
OPENING = 0.85
"""Places open at this share of what tells those of a class apart: bids are half as many then as from nothing,
and with all of it some places get none."""
STEP, STEP_LARGE = 0.003, 0.006
"""A bid for a place is this much above the last at least, in what a place gains on the mean; the second where
the market is LARGE. Half of it takes nearly twice as many bids."""


def search(
    edges: Edges,
    guess: Floats,
    price: Floats,
    gangs: Gangs,
    stock: Stock,
    won: Ints,
    *,
    coarse: float,
    seed: int,
) -> tuple[Ints, int]:
    """A better plan than `won`, by job an edge or -1, which is changed: (rows (job, offer, devices), trials).

    `guess` and `price`: as the loops of `kernels.anneal` have them. `coarse`: how much larger than usual the
    steps of bids are.
    """
    classes = len(stock.start) - 1
    live = np.flatnonzero(np.diff(edges.start))
    large = stock.device_start[-1] > LARGE * classes
    trials = 0 if large else trials_of(jobs=len(live), stock=stock)
    gains = guess[won[won >= 0]]
    heat = HEAT * min(1.0, trials / (HOT_TRIALS * max(1, len(live))))
    if len(gains):
        heat *= float(gains.mean())
    boost = stock.size.astype(np.float64)[None, :] ** np.array(BIASES)[:, None]
    seats, bench = seats_of(edges, gangs, stock, won), bench_of(stock, gangs)
    hopes = Hopes(job=np.empty((classes, CANDIDATES), np.int64), promise=np.empty((classes, CANDIDATES)))
    trial, rows = trial_of(stock, seats, seed), np.empty_like(bench.parts)
    kernels.settle_all(gangs, stock, boost, True, seats, trial, bench, rows)
    if trials:
        kernels.anneal(
            trials, edges, guess, price, gangs, stock, boost, live, heat, seats, hopes, trial, bench
        )
    rows = rows[: kernels.settle_all(gangs, stock, boost, False, seats, trial, bench, rows)]
    places, place = places_of(edges, gangs, stock, rows)
    step = coarse * (STEP_LARGE if large else STEP)
    kernels.trade(edges, gangs, places, won, OPENING, step)
    rows[:, 0] = places.holder[place]
    return rows[rows[:, 0] >= 0], trials


def trials_of(*, jobs: int, stock: Stock) -> int:
    """How many of annealing."""
    work = TRIAL_WORK + (jobs + len(stock.devices)) // max(1, len(stock.start) - 1)
    return min(TRIALS_A_JOB * jobs, SEARCH_WORK // work)
