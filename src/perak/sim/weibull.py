"""A Weibull fitted to yearly failures, with intervals: how lifetimes looked, and how badly they foretell.

For the record and for plots, not for the market: the exchange prices by `perak.domain.hardware.hazard`. Needs
SciPy (``pip install perak[sim]``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DROP_95 = 1.920729
"""Of the log-likelihood: half the 95% quantile of chi-squared with one degree of freedom."""
STEP = 0.01
"""How far from the likeliest shape, in its logarithm, an interval's end is sought first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeibullFit:
    """Shape `k` and scale in years, by maximum likelihood, with 95% intervals of `k` by its profile.

    `sampling` counts chance alone. `misfit` widens it by how badly a Weibull fits at all (the likelihood is
    divided by Pearson's statistic per degree of freedom); None where as many years as parameters leave none.
    """

    k: float
    scale_years: float
    sampling: tuple[float, float]
    misfit: tuple[float, float] | None

    def failing_in(self, year: int) -> float:
        """The share of those at work at its beginning that fail in that year, the first being 1."""
        return -math.expm1(-((year / self.scale_years) ** self.k - ((year - 1) / self.scale_years) ** self.k))


def fit_yearly(shares: Sequence[float], *, devices: int | Sequence[int]) -> WeibullFit:
    """Fit to the shares (0 to 1) that failed in each year of the `devices` at work in it."""
    from scipy.optimize import minimize

    at_work = np.broadcast_to(np.asarray(devices, dtype=np.float64), len(shares))
    failed = np.asarray(shares, dtype=np.float64) * at_work
    years = np.arange(len(shares) + 1, dtype=np.float64)

    def loss(log_k: float, log_scale: float) -> float:
        hazard = np.diff((years / math.exp(log_scale)) ** math.exp(log_k))
        return float(-np.sum(failed * np.log(-np.expm1(-hazard)) - (at_work - failed) * hazard))

    options = {"maxiter": 5_000, "xatol": 1e-8, "fatol": 1e-9}
    best = minimize(lambda each: loss(*each), np.array([0.5, 2.5]), method="Nelder-Mead", options=options).x
    k, scale = (float(each) for each in np.exp(best))
    expected = -np.expm1(-np.diff((years / scale) ** k))
    misses = (failed - at_work * expected) ** 2 / (at_work * expected * (1 - expected))
    free = len(shares) - 2
    inflation = max(1.0, float(np.sum(misses)) / free) if free > 0 else None
    return WeibullFit(
        k=k,
        scale_years=scale,
        sampling=_interval(loss, best, DROP_95, years=len(shares)),
        misfit=None if inflation is None else _interval(loss, best, DROP_95 * inflation, years=len(shares)),
    )


def _interval(
    loss: Callable[[float, float], float], best: Sequence[float], drop: float, *, years: int
) -> tuple[float, float]:
    """The shapes at which the likelihood, at its best scale, is `drop` less than it is at most."""
    from scipy.optimize import brentq, minimize_scalar

    log_k, log_scale = best
    least, end = loss(log_k, log_scale), math.log(years)

    def missing(at: float) -> float:
        # Of the scales those are sought first at which as many have failed by the end as did.
        middle = end - math.exp(log_k - at) * (end - log_scale)
        found = minimize_scalar(lambda scale: loss(at, scale), bracket=(middle - 0.01, middle + 0.01))
        return float(found.fun) - least - drop

    def edge(side: int) -> float:
        step = STEP
        while missing(log_k + side * step) < 0:
            step *= 2
        return math.exp(brentq(missing, log_k + side * step / 2 * (step > STEP), log_k + side * step))

    return edge(-1), edge(1)
