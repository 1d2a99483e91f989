"""How long an agent waits before it dials again."""

from __future__ import annotations

from itertools import islice

from perak.agent.link import QUICK_SECONDS, backoff
from perak.agent.settings import Limits

FIRST, MAX = Limits().reconnect_first_seconds, Limits().reconnect_max_seconds


def test_delays_stay_short_at_first_and_grow_to_their_maximum() -> None:
    delays = list(islice(backoff(FIRST, MAX), 30))
    passed = 0.0
    for delay in delays:
        # Whoever waited for so long in all waits no longer than that again, or a beat or so.
        assert delay <= max(passed + FIRST, 1.2 * QUICK_SECONDS)
        passed += delay
    assert all(MAX / 2 <= delay <= MAX for delay in delays[-10:])
