"""A forecast of hourly intensity from its own past: a seasonal profile, and what is left of it, learnt.

The base is the mean of the hour over the last seven days plus what decays of the last deviation from it. On
top comes a ridge regression of what that base missed, on 73 plain features: the deviations of the last day,
those of the same hours a week ago, how four weeks' profile differs from one week's, and how their levels do.
One set of weights serves all zones (each weighted by its own variability), is learnt from hours before the
forecast alone and is learnt anew each week. A forecast for hour t and after knows hours up to t - 1.

Time is a row index in hours; a history has a row an hour and a column a zone, in g/kWh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from perak.domain.carbon.shifting import Floats

DAY = 24
WEEK = 168
HORIZON_HOURS = 72
"""To the end of a job of two days that waits for one."""
PROFILE_DAYS = 7
LONG_PROFILE_DAYS = 28
DECAY_PER_HOUR = 0.9
"""Of the last deviation from the profile."""
FEATURES = 3 * DAY + 1
RIDGE_HOURS = 30.0
"""Hours of history that the wish for small weights outweighs."""
REFIT_HOURS = WEEK

_TINY = 1e-6
"""(g/kWh)²: keeps a zone whose intensity never changes from being divided by zero."""


Rows = npt.NDArray[np.int64]


def persistence(series: Floats, origins: Rows) -> Floats:
    """The last known hour goes on. As with each model here: a row an origin, a column an hour ahead."""
    return np.repeat(series[origins - 1][:, None], HORIZON_HOURS, axis=1)


def seasonal_naive(series: Floats, origins: Rows) -> Floats:
    """Each hour as it was on the last day that is known."""
    return np.asarray(series[origins[:, None] - DAY + np.arange(HORIZON_HOURS) % DAY])


def decaying_profile(series: Floats, origins: Rows) -> Floats:
    """The mean of the hour over seven days, and what decays of the last deviation from it."""
    profile, deviations = _profile(series, origins)
    return _base(profile, deviations)


def learnt(history: Floats) -> Floats:
    """The `HORIZON_HOURS` after a `history` of a week at least, for each of its zones."""
    hours, zones = history.shape
    assert hours >= WEEK, "the profile needs a week"
    sums = _Sums.none()
    for zone in range(zones):
        sums.add(_zone_sums(history[:, zone], [hours])[0])
    weights = sums.solved()
    columns = [_forecasts(history[:, zone], np.array([hours]), weights)[0] for zone in range(zones)]
    return np.stack(columns, axis=1)


def backtest(
    history: Floats, *, zones: Sequence[int], learn_from: Sequence[int] | None = None
) -> Iterator[tuple[int, Floats]]:
    """What `learnt` would have said at each hour from the second week on: (zone, a row an origin).

    Weights are learnt each week, from the hours before it in the zones `learn_from` (all, unless given).
    """
    hours = history.shape[0]
    refits = list(range(2 * WEEK, hours, REFIT_HOURS))
    learnt_by = [_Sums.none() for _ in refits]
    for zone in learn_from if learn_from is not None else range(history.shape[1]):
        for total, sums in zip(learnt_by, _zone_sums(history[:, zone], refits), strict=True):
            total.add(sums)
    starts = [WEEK, *refits]
    weights = [_Sums.none().solved(), *(sums.solved() for sums in learnt_by)]
    for zone in zones:
        parts = [
            _forecasts(history[:, zone], np.arange(start, min(end, hours)), weight)
            for start, end, weight in zip(starts, [*refits, hours], weights, strict=True)
        ]
        yield zone, np.concatenate(parts)


@dataclass(slots=True)
class _Sums:
    """The normal equations of the regression."""

    gram: Floats
    moment: Floats
    zones: int
    origins: int

    @classmethod
    def none(cls) -> _Sums:
        return cls(np.zeros((FEATURES, FEATURES)), np.zeros((FEATURES, HORIZON_HOURS)), 0, 0)

    def add(self, other: _Sums) -> None:
        self.gram += other.gram
        self.moment += other.moment
        self.zones += other.zones
        self.origins = max(self.origins, other.origins)

    def solved(self) -> Floats:
        """The weights, a row a feature and a column an hour ahead; zero before anything was seen."""
        if not self.origins:
            return np.zeros((FEATURES, HORIZON_HOURS))
        ridge = self.zones * RIDGE_HOURS / self.origins * np.eye(FEATURES)
        return np.asarray(np.linalg.solve(self.gram + ridge, self.moment))


def _zone_sums(series: Floats, untils: Sequence[int]) -> list[_Sums]:
    """What a zone's hours before each of `untils` (ascending) teach, scaled to features of variance one."""
    found, done = [], WEEK
    gram, moment = np.zeros((FEATURES, FEATURES)), np.zeros((FEATURES, HORIZON_HOURS))
    for until in untils:
        # An origin teaches once the last hour that it forecast is known.
        origins = np.arange(done, max(done, until - HORIZON_HOURS + 1))
        if origins.size:
            features, base = _features_and_base(series, origins)
            missed = sliding_window_view(series, HORIZON_HOURS)[origins] - base
            gram = gram + features.T @ features
            moment = moment + features.T @ missed
            done = int(origins[-1]) + 1
        rows = done - WEEK
        scale = 1 / (np.trace(gram) / FEATURES + rows * _TINY) if rows else 0.0
        found.append(_Sums(gram * scale, moment * scale, 1, rows))
    return found


def _forecasts(series: Floats, origins: Rows, weights: Floats) -> Floats:
    """No forecast is below zero, since no intensity is."""
    features, base = _features_and_base(series, origins)
    return np.maximum(base + features @ weights, 0.0)


def _features_and_base(series: Floats, origins: Rows) -> tuple[Floats, Floats]:
    """What is known at each origin, as deviations in g/kWh; and the base forecast."""
    profile, deviations = _profile(series, origins)
    long_profile = _mean_of_days(series, origins, LONG_PROFILE_DAYS)
    day = sliding_window_view(series, DAY)
    level = (profile.mean(axis=1) - long_profile.mean(axis=1))[:, None]
    features = [deviations, day[origins - WEEK] - profile, long_profile - profile, level]
    return np.concatenate(features, axis=1), _base(profile, deviations)


def _profile(series: Floats, origins: Rows) -> tuple[Floats, Floats]:
    """The mean of each of the next 24 hours of the day over seven days; the last day's deviations from it."""
    profile = _mean_of_days(series, origins, PROFILE_DAYS)
    return profile, sliding_window_view(series, DAY)[origins - DAY] - profile


def _mean_of_days(series: Floats, origins: Rows, most: int) -> Floats:
    """The mean of each of the next 24 hours of the day over the last days, `most` or as many as are known."""
    whole = -(-series.size // DAY) * DAY
    by_day = np.pad(series, (0, whole - series.size)).reshape(-1, DAY)
    # Sums over the days up to and with each hour, behind a day of zeros: a mean is the difference of two.
    sums = sliding_window_view(np.concatenate([np.zeros(DAY), np.cumsum(by_day, axis=0).ravel()]), DAY)
    days = np.minimum(origins // DAY, most)
    return np.asarray((sums[origins] - sums[origins - days * DAY]) / days[:, None], dtype=np.float64)


def _base(profile: Floats, deviations: Floats) -> Floats:
    decay = DECAY_PER_HOUR ** np.arange(1, HORIZON_HOURS + 1)
    return np.tile(profile, (1, HORIZON_HOURS // DAY)) + deviations[:, -1:] * decay
