"""Rates are bounded for each key and address, and open again by themselves."""

from __future__ import annotations

import contextlib

import pytest

from perak.server import ratelimits
from perak.server.ratelimits import (
    ADDRESS_REQUESTS,
    FAILURES,
    FOLLOWERS_MAX,
    KEY_REQUESTS,
    OverLimit,
    RateLimits,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_refused_over_its_limit_and_free_in_the_next_window() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    for _ in range(KEY_REQUESTS.amount):
        limits.key("a")
    with pytest.raises(OverLimit) as refused:
        limits.key("a")
    assert refused.value.retry_after == KEY_REQUESTS.seconds
    limits.key("b")
    limits.address("a")
    clock.now += KEY_REQUESTS.seconds
    limits.key("a")


def test_a_burst_of_500_jobs_passes() -> None:
    limits = RateLimits(Clock())
    for _ in range(1000):
        limits.key("a")


def test_wrong_secrets_close_the_door_for_a_while() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    for _ in range(FAILURES.amount):
        limits.check_failures("here")
        limits.failure("here")
    with pytest.raises(OverLimit):
        limits.check_failures("here")
    limits.check_failures("there")
    clock.now += FAILURES.seconds
    limits.check_failures("here")


def test_a_key_follows_a_bounded_number_of_streams() -> None:
    limits = RateLimits(Clock())
    with contextlib.ExitStack() as streams:
        for _ in range(FOLLOWERS_MAX):
            limits.check_followers("a")
            streams.enter_context(limits.following("a"))
        with pytest.raises(OverLimit, match="follows"):
            limits.check_followers("a")
        limits.check_followers("b")
    limits.check_followers("a")
    assert not limits._followers


def test_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimits, "COUNTERS_MAX", 100)
    clock = Clock()
    limits = RateLimits(clock)
    for number in range(1000):
        clock.now += ADDRESS_REQUESTS.seconds / 50
        limits.address(f"address-{number}")
        assert len(limits._windows) <= 100
