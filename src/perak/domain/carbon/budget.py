"""A job's max_carbon: the least that can be kept, when its renter is warned, and when its run is stopped.

Who judges counts in the unit that it has: the exchange in grams, a node that is cut off in the joules that
the exchange allowed it.
"""

from __future__ import annotations

from perak.domain.facts.power import PUE_UNKNOWN
from perak.domain.footprint import JOULES_PER_KWH

GO_ON, WARN, STOP = "go on", "warn", "stop"
WARN_SHARE = 0.8
READING_SECONDS = 5.0
"""Between two readings of a node's meter, of which the first comes so long after the start."""
STOP_SECONDS = 30.0
"""From a reading to the end of a run that it stops: the order, ten seconds for the run to end itself, and
some to spare. A node whose exchange is silent finds out after three beats, and judges by itself within it."""
KEEPABLE_SECONDS = 2 * READING_SECONDS + STOP_SECONDS
"""A budget of less than this time's emissions is not accepted: the first reading would stop the run. A run
that then ends in time, within 16 s of its start, keeps one that it draws 2.5 times the expected power of."""
ALLOWED_ANEW_SECONDS = 900
"""How often the joules that a node may spend alone are counted anew from what its run has emitted."""
WATTS_PER_GPU_MAX, WATTS_PER_CORE_MAX = 2000.0, 100.0
"""More than any draws that is known; a budget that covers these on the dirtiest grid needs no closer look."""


def judge_budget(
    *,
    budget: float,
    before: float,
    now: float,
    seconds_between: float,
    seconds_to_next: float | None = None,
    earlier: float = 0.0,
) -> str:
    """One of GO_ON, WARN and STOP for a run that had used `before`, and `seconds_between` later `now`.

    `earlier`: what the job's runs before this one used; `seconds_to_next`: until the next reading, as long as
    since the last unless given. It is stopped while what it uses until the next reading, and until it has
    ended, still fits. WARN comes once: when four fifths of the budget are passed.
    """
    ahead = (seconds_between if seconds_to_next is None else seconds_to_next) + STOP_SECONDS
    rate = max(0.0, now - before) / seconds_between if seconds_between > 0 else 0.0
    if earlier + now + rate * ahead >= budget:
        return STOP
    threshold = WARN_SHARE * budget
    return WARN if earlier + before < threshold <= earlier + now else GO_ON


def least_keepable_grams(*, watts: float, grams_per_kwh: float, pue: float = PUE_UNKNOWN) -> float:
    """The smallest budget that can be kept for a run of so many watts."""
    return watts * KEEPABLE_SECONDS / JOULES_PER_KWH * grams_per_kwh * pue


def joules_allowed(
    *, left_grams: float, worst_grams_per_kwh: float, drawn_joules: float = 0.0, pue: float = PUE_UNKNOWN
) -> float | None:
    """What a run that has drawn `drawn_joules` may have drawn in all while nobody can be asked.

    `left_grams`: of the budget, after all that was emitted. Every joule to come counts as in the worst hour.
    None: there is no bound, as the power is free of carbon.
    """
    if worst_grams_per_kwh <= 0:
        return None
    return drawn_joules + max(0.0, left_grams) / (worst_grams_per_kwh * pue) * JOULES_PER_KWH
