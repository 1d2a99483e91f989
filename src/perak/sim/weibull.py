"""A Weibull fitted to yearly failures, with intervals: how lifetimes looked, and how badly they foretell.

For the record and for plots, not for the market: the exchange prices by `perak.domain.hardware.hazard`. Needs
SciPy (``pip install perak[sim]``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NORMAL_95 = 1.959964

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeibullFit:
    """Shape `k` and scale in years, by maximum likelihood, with 95% intervals of `k`.

    `sampling` counts chance alone. `misfit` widens it by how badly a Weibull fits at all (Pearson's statistic
    per degree of freedom); None where as many years as parameters leave none.
    """

    k: float
    scale_years: float
    sampling: tuple[float, float]
    misfit: tuple[float, float] | None

    def failing_in(self, year: int) -> float:
        """The share of those at work at its beginning that fail in that year, the first being 1."""
        return -math.expm1(-((year / self.scale_years) ** self.k - ((year - 1) / self.scale_years) ** self.k))


def fit_yearly(shares: Sequence[float], *, devices: int) -> WeibullFit:
    """Fit to the shares (0 to 1) of about `devices` at work each year that failed in it, year by year."""
    from scipy.optimize import minimize

    failed = np.asarray(shares, dtype=np.float64) * devices
    years = np.arange(len(shares) + 1, dtype=np.float64)

    def loss(parameters: Floats) -> float:
        k, scale = np.exp(parameters)
        hazard = np.diff((years / scale) ** k)
        return float(-np.sum(failed * np.log(-np.expm1(-hazard)) - (devices - failed) * hazard))

    options = {"maxiter": 5_000, "xatol": 1e-8, "fatol": 1e-9}
    best: Floats = minimize(loss, np.array([0.5, 2.5]), method="Nelder-Mead", options=options).x
    k, scale = (float(each) for each in np.exp(best))
    spread = math.sqrt(np.linalg.inv(_curvature(loss, best))[0, 0])
    expected = -np.expm1(-np.diff((years / scale) ** k))
    misses = (failed - devices * expected) ** 2 / (devices * expected * (1 - expected))
    free = len(shares) - 2
    inflation = max(1.0, float(np.sum(misses)) / free) if free > 0 else None
    return WeibullFit(
        k=k,
        scale_years=scale,
        sampling=_interval(k, spread),
        misfit=None if inflation is None else _interval(k, spread * math.sqrt(inflation)),
    )


def _interval(k: float, spread: float) -> tuple[float, float]:
    return k * math.exp(-NORMAL_95 * spread), k * math.exp(NORMAL_95 * spread)


def _curvature(loss: object, at: Floats, step: float = 1e-4) -> Floats:
    """Second derivatives by central differences."""
    assert callable(loss)
    unit = np.eye(len(at)) * step
    return np.array(
        [
            [
                (loss(at + i + j) - loss(at + i - j) - loss(at - i + j) + loss(at - i - j))
                / (4 * step * step)
                for j in unit
            ]
            for i in unit
        ]
    )
