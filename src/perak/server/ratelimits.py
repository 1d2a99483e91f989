"""How often a key or an address may ask. Counted in memory, by each replica for itself."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perak.domain.errors import TooManyRequests

COUNTERS_MAX = 50_000
"""Keys and addresses counted at once, some 10 MB; beyond, those whose window is over are forgotten first."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` requests in each window of `seconds`."""

    amount: int
    seconds: float
    refusal: str


KEY_REQUESTS = Limit(5_000, 5.0, "this key asks too often")
"""A thousand a second, in bursts of five: more than one replica on two cores serves, so that only a runaway
script meets it, and a burst of 500 jobs does not."""
ADDRESS_REQUESTS = Limit(500, 5.0, "this address asks too often")
"""Requests without a key, from one address: health checks, and what anyone may know."""
FAILURES = Limit(60, 60.0, "too many wrong keys or invites came from this address")
"""A secret has 256 bits, which nobody guesses, so this only saves work."""


FOLLOWERS_MAX = 256
"""Streams that one key may follow at once here. Each holds up to 256 KiB for a reader that does not read."""
FOLLOWER_RETRY_SECONDS = 5


class OverLimit(TooManyRequests):
    """Over a rate limit; `retry_after` is in whole seconds."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimits:
    """The counters of one replica. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[Limit, str], tuple[float, int]] = {}
        self._followers: Counter[str] = Counter()

    def key(self, key: str) -> None:
        """Count a request of a key. Raises OverLimit."""
        self._hit(KEY_REQUESTS, key)

    def address(self, address: str) -> None:
        """Count a request without a key. Raises OverLimit."""
        self._hit(ADDRESS_REQUESTS, address)

    def check_failures(self, address: str) -> None:
        """Raises OverLimit where too many wrong secrets came from the address."""
        ends_at, count = self._windows.get((FAILURES, address), (0.0, 0))
        if count >= FAILURES.amount and ends_at > self._clock():
            self._refuse(FAILURES, ends_at)

    def failure(self, address: str) -> None:
        """Count a wrong secret."""
        self._count(FAILURES, address)

    def check_followers(self, key: str) -> None:
        """Raises OverLimit where the key follows FOLLOWERS_MAX streams already."""
        if self._followers[key] >= FOLLOWERS_MAX:
            raise OverLimit(
                f"this key follows {FOLLOWERS_MAX} streams already; close one, or read the log instead",
                retry_after=FOLLOWER_RETRY_SECONDS,
            )

    @contextlib.contextmanager
    def following(self, key: str) -> Iterator[None]:
        """Count one stream of the key, as long as it lasts."""
        self._followers[key] += 1
        try:
            yield
        finally:
            self._followers[key] -= 1
            if not self._followers[key]:
                del self._followers[key]

    def _hit(self, limit: Limit, who: str) -> None:
        ends_at, count = self._count(limit, who)
        if count > limit.amount:
            self._refuse(limit, ends_at)

    def _count(self, limit: Limit, who: str) -> tuple[float, int]:
        now = self._clock()
        ends_at, count = self._windows.get((limit, who), (0.0, 0))
        if ends_at <= now:
            self._make_room(now)
            ends_at, count = now + limit.seconds, 0
        self._windows[limit, who] = window = (ends_at, count + 1)
        return window

    def _make_room(self, now: float) -> None:
        if len(self._windows) < COUNTERS_MAX:
            return
        self._windows = {who: window for who, window in self._windows.items() if window[0] > now}
        if len(self._windows) >= COUNTERS_MAX:
            self._windows.clear()

    def _refuse(self, limit: Limit, ends_at: float) -> None:
        wait = max(1, math.ceil(ends_at - self._clock()))
        raise OverLimit(
            f"{limit.refusal}: {limit.amount:,} in {limit.seconds:g} s are taken; wait {wait} s",
            retry_after=wait,
        )
