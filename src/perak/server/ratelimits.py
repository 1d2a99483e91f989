"""How often a key or an address may ask. Counted in memory, by each replica for itself."""

from __future__ import annotations

import time

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from perak.domain.errors import TooManyRequests

KEY_REQUESTS = RateLimitItemPerSecond(5_000, 5, namespace="key")
"""A thousand a second, in bursts of five: more than one replica on two cores serves, so that only a runaway
script meets it, and a burst of 500 jobs does not."""
ADDRESS_REQUESTS = RateLimitItemPerSecond(500, 5, namespace="address")
"""Requests without a key, from one address: health checks, and what anyone may know."""
FAILURES = RateLimitItemPerMinute(60, namespace="failures")
"""Wrong keys and invites from one address: a secret has 256 bits, so this only saves work."""


class OverLimit(TooManyRequests):
    """Over a rate limit; `retry_after` is in whole seconds."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimits:
    """The counters of one replica."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def key(self, key: str) -> None:
        """Count a request of a key. Raises OverLimit."""
        self._hit(KEY_REQUESTS, key, "this key asks too often")

    def address(self, address: str) -> None:
        """Count a request without a key. Raises OverLimit."""
        self._hit(ADDRESS_REQUESTS, address, "this address asks too often")

    def check_failures(self, address: str) -> None:
        """Raises OverLimit where too many wrong secrets came from the address."""
        if not self._limiter.test(FAILURES, address):
            self._refuse(FAILURES, address, "too many wrong keys or invites came from this address")

    def failure(self, address: str) -> None:
        """Count a wrong secret."""
        self._limiter.hit(FAILURES, address)

    def _hit(self, limit: RateLimitItem, who: str, what: str) -> None:
        if not self._limiter.hit(limit, who):
            self._refuse(limit, who, what)

    def _refuse(self, limit: RateLimitItem, who: str, what: str) -> None:
        wait = max(1, round(self._limiter.get_window_stats(limit, who).reset_time - time.time()))
        raise OverLimit(f"{what}: {limit}; wait {wait} s", retry_after=wait)
