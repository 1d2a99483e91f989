"""What of an offer is free over a time, and not only now: parts that are reserved, and leases that end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from perak.domain.job import JobSpec, Reserve
from perak.domain.offer import Claim, Offer

PREPARE_SECONDS = 600
"""A run may last this much longer than its max_duration: getting its environment ready, and ending, are not
counted in it. What takes longer is stopped where another's window begins."""
AHEAD_SECONDS_MAX = 30 * 86_400
"""A window begins within so long: longer than anybody's forecast or posted end date holds."""
WINDOW_SECONDS_MIN = 60
WINDOW_SECONDS_MAX = 30 * 86_400


def run_until(spec: JobSpec, *, now: datetime) -> datetime:
    """When a run that is leased now has ended at the latest."""
    return now + timedelta(seconds=spec.limits.duration_seconds + PREPARE_SECONDS)


def left_until(offer: Offer, *, now: datetime, until: datetime) -> Offer:
    """The offer with those of its free parts that no window claims before `until`."""
    if not offer.reserved:
        return offer
    return _less(offer, _overlapping(offer.reserved, start=now, end=until))


def in_window(offer: Offer, reserve: Reserve, *, now: datetime) -> Offer:
    """The offer with the parts of it that nobody else has in what is left of the window, as its free ones."""
    assert offer.taken is not None, "who asks for a window looks up what is taken"
    claims = _overlapping(offer.taken, start=max(now, reserve.start_at), end=reserve.end_at)
    ask = offer.ask
    idle = replace(
        offer,
        free_devices=ask.devices,
        free_cpu_milli=ask.cpu_milli,
        free_memory_bytes=ask.memory_bytes,
        free_disk_bytes=ask.disk_bytes,
    )
    return _less(idle, claims)


def first_claim(offer: Offer, *, now: datetime, until: datetime) -> Claim | None:
    """The window that begins first of those that a run until then would run into."""
    found = _overlapping(offer.reserved, start=now, end=until)
    return min(found, key=lambda each: each.start_at, default=None)


def _overlapping(claims: Sequence[Claim], *, start: datetime, end: datetime) -> list[Claim]:
    return [each for each in claims if each.start_at < end and start < each.end_at]


def _less(offer: Offer, claims: Sequence[Claim]) -> Offer:
    """The free parts less what the claims take: each device, and of the rest the most at any one time."""
    if not claims:
        return offer
    gone = {uuid for each in claims for uuid in each.devices}
    return replace(
        offer,
        free_devices=tuple(each for each in offer.free_devices if each.uuid not in gone),
        free_cpu_milli=offer.free_cpu_milli - _peak([(c, c.cpu_milli) for c in claims]),
        free_memory_bytes=offer.free_memory_bytes - _peak([(c, c.memory_bytes) for c in claims]),
        free_disk_bytes=offer.free_disk_bytes - _peak([(c, c.disk_bytes) for c in claims]),
    )


def _peak(claims: Sequence[tuple[Claim, int]]) -> int:
    """The most that overlapping claims take together; it is reached where one of them begins."""
    return max(
        sum(amount for each, amount in claims if each.start_at <= first.start_at < each.end_at)
        for first, _ in claims
    )
