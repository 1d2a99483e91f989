"""A job's max_carbon: when its renter is warned, and when it is stopped so that the budget is kept."""

from __future__ import annotations

GO_ON, WARN, STOP = "go on", "warn", "stop"
WARN_SHARE = 0.8
STOP_SECONDS = 30.0
"""A run that is asked to end has this long: its outputs are taken, and it may save itself."""


def judge_budget(
    *, budget_grams: float, before: float, now: float, seconds_between: float, earlier: float = 0.0
) -> str:
    """One of GO_ON, WARN and STOP for a run that had emitted `before`, and `seconds_between` later `now`.

    `earlier`: what the job's runs before this one emitted. It is stopped while what it emits until the next
    reading, and until it has ended, still fits. WARN comes once: when four fifths of the budget are passed.
    """
    rate = max(0.0, now - before) / seconds_between if seconds_between > 0 else 0.0
    if earlier + now + rate * (seconds_between + STOP_SECONDS) >= budget_grams:
        return STOP
    threshold = WARN_SHARE * budget_grams
    return WARN if earlier + before < threshold <= earlier + now else GO_ON
