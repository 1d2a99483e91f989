"""What of an offer is free over a time, and not only now: parts that are reserved, and leases that end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from perak.domain.job import JobSpec, Reserve
from perak.domain.units import charge, format_money

if TYPE_CHECKING:  # The job file needs the limits below alone, and commands start with it.
    from perak.domain.offer import Claim, Offer

PREPARE_SECONDS = 600
"""A run may last this much longer than its max_duration: getting its environment ready, and ending, are not
counted in it. What takes longer is stopped where another's window begins."""
AHEAD_SECONDS_MAX = 30 * 86_400
"""A window begins within so long: longer than anybody's forecast or posted end date holds."""
WINDOW_SECONDS_MIN = 30
"""The last seconds of a window are for ending; a shorter one would have no others."""
WINDOW_SECONDS_MAX = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A reservation as it stands: on which node, at micro-units per device-hour, and what became of it.

    `state` is one of the RESERVATION lifecycle; `note` says why it was moved or lost.
    """

    node_name: str
    state: str
    price: int
    devices_milli: int
    start_at: datetime
    end_at: datetime
    note: str | None = None

    @property
    def cost(self) -> int:
        """Of the whole window, in micro-units."""
        seconds = int((self.end_at - self.start_at).total_seconds())
        return charge(price_per_device_hour=self.price, devices_milli=self.devices_milli, seconds=seconds)

    def lines(self, currency: str) -> tuple[str, ...]:
        """Why the job is where it is, as far as its window says so."""
        span = f"from {self.start_at:%Y-%m-%d %H:%M} to {self.end_at:%Y-%m-%d %H:%M} UTC"
        price = f"{format_money(self.price, currency)} per device-hour"
        said = {
            "booked": f"{self.node_name} is reserved for it {span} at {price}; it begins then",
            "begun": f"its reserved window on {self.node_name} is {span} at {price}",
            "ended": f"its reserved window on {self.node_name} was {span} at {price}",
            "cancelled": f"its window on {self.node_name} {span} was cancelled before it began: it is free",
            "lost": f"its window on {self.node_name} {span} could not be kept: nothing is paid",
        }[self.state]
        return (said,) if self.note is None else (said, self.note)


def run_until(spec: JobSpec, *, now: datetime) -> datetime:
    """When a run that is leased now has ended at the latest."""
    return now + timedelta(seconds=spec.limits.duration_seconds + PREPARE_SECONDS)


def left_until(offer: Offer, *, now: datetime, until: datetime) -> Offer:
    """The offer with those of its free parts that no window claims before `until`."""
    if not offer.reserved:
        return offer
    return _less(offer, _overlapping(offer.reserved, start=now, end=until))


def in_window(offer: Offer, reserve: Reserve, *, now: datetime) -> Offer:
    """The offer with the parts of it that nobody else has in what is left of the window, as its free ones.

    Where `Offer.taken` was not looked up, all of it counts as free: whether the offer would do when idle.
    """
    claims = _overlapping(offer.taken or (), start=max(now, reserve.start_at), end=reserve.end_at)
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
