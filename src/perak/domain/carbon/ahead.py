"""The hours ahead of a zone whose feed gives no forecast: its own last week, in plain Python.

The model is `forecast.decaying_profile`, which the simulator measured by zone on 2022 (docs/shifting.md): the
mean of the hour of the day over up to seven days, and what decays of the last deviation from it. Of less than
a day nothing is forecast. An exchange needs no numpy for it.
"""

from __future__ import annotations

from perak.domain.carbon.signal import AverageHours

DAY = 24
HORIZON_HOURS = 72
PROFILE_DAYS = 7
DECAY_PER_HOUR = 0.9
GAP_HOURS_MAX = 6
"""How old the last known hour may be: a deviation of before has gone, and a feed so late is broken."""


def own_forecast(known: AverageHours, *, now_hour: int, horizon: int = HORIZON_HOURS) -> AverageHours | None:
    """The hours after the last known one, up to `horizon` from `now_hour`; None: too little is known."""
    last = _last_known(known, now_hour)
    if last is None or now_hour - last > GAP_HOURS_MAX:
        return None
    profile = {hour: _mean_of_days(known, last, hour) for hour in range(DAY)}
    if any(value is None for value in profile.values()):
        return None
    at_last = known.at(last)
    usual = profile[last % DAY]
    assert at_last is not None
    assert usual is not None
    deviation = at_last - usual
    values = []
    for hour in range(last + 1, now_hour + horizon):
        mean = profile[hour % DAY]
        assert mean is not None
        values.append(max(0.0, mean + deviation * DECAY_PER_HOUR ** (hour - last)))
    return AverageHours(
        zone=known.zone,
        first_hour=last + 1,
        grams_per_kwh=tuple(values),
        source=f"Perak's forecast from {known.source}",
        factor=known.factor,
    )


def _last_known(known: AverageHours, now_hour: int) -> int | None:
    hours = range(min(known.end_hour - 1, now_hour), known.first_hour - 1, -1)
    return next((hour for hour in hours if known.at(hour) is not None), None)


def _mean_of_days(known: AverageHours, last: int, hour_of_day: int) -> float | None:
    """The mean of that hour of the day over the last days up to and with hour `last`."""
    newest = last - (last - hour_of_day) % DAY
    days = (known.at(newest - DAY * day) for day in range(PROFILE_DAYS))
    values = [value for value in days if value is not None]
    return sum(values) / len(values) if values else None
