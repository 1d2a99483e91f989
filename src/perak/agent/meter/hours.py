"""In which hours a run's energy was drawn, so that its carbon is that of those hours."""

from __future__ import annotations

from perak.domain.carbon.signal import parts_by_hour
from perak.domain.footprint import HOURS_ON_RECEIPT_MAX

HOURS_REPORTED_MAX = 48
"""Of a run that goes on: its report comes every few seconds; that of its end has them all."""


def add_energy(
    hours: list[tuple[int, float]], *, since: float, until: float, before: float, now: float
) -> None:
    """Note the joules between two samples, evenly over their time, so that all hours sum to `now`.

    A reading that replaces what was modelled may lower the whole: every hour then shrinks alike.
    """
    if now < before:
        scale = now / before
        hours[:] = [(hour, joules * scale) for hour, joules in hours]
        return
    parts = list(parts_by_hour(since, until - since)) or [(int(until // 3600), 1.0)]
    whole = sum(part for _, part in parts)
    for hour, part in parts:
        joules = (now - before) * part / whole
        if hours and hours[-1][0] == hour:
            hours[-1] = (hour, hours[-1][1] + joules)
        else:
            hours.append((hour, joules))


def reported(hours: list[tuple[int, float]], *, ended: bool) -> tuple[tuple[int, float], ...]:
    """The hours for a report; none of a run that is too long for it."""
    most = HOURS_ON_RECEIPT_MAX if ended else HOURS_REPORTED_MAX
    return tuple(hours) if len(hours) <= most else ()
