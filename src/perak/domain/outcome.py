"""What the end of a run means for its job, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.job import Retry
from perak.domain.report import CAUSES, NODE_CAUSES
from perak.domain.units import billed_seconds, charge, split_charge

ROLLING_SECONDS = 600
"""Where the wallet does not cover the whole of max_duration, ten minutes are held ahead (design)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The job's next step (an event of the JOB lifecycle) and the reason to show."""

    event: str
    reason: str | None


def outcome(*, state: str, cause: str, exit_code: int | None, attempts: int, retry: Retry) -> Outcome:
    """What a job in `state` does when its run, attempt number `attempts`, ended by `cause`.

    A run that ended well is a success even when its cancellation was on the way.
    """
    if cause == "exited" and exit_code == 0:
        return Outcome(event="succeeded", reason=None)
    if state == "cancelling" and (cause == "cancelled" or cause in NODE_CAUSES):
        return Outcome(event="cancelled", reason="cancelled by the renter")
    if _may_retry(cause, retry):
        if attempts < retry.max_attempts:
            return Outcome(event="requeued", reason=CAUSES[cause])
        last = f"the last of {attempts} attempts" if attempts > 1 else "its only attempt"
        return Outcome(event="failed", reason=f"{CAUSES[cause]}, on {last}")
    if cause == "exited":
        return Outcome(event="failed", reason=f"the job ended with exit code {exit_code}")
    return Outcome(event="failed", reason=CAUSES[cause])


def _may_retry(cause: str, retry: Retry) -> bool:
    """A lost sandbox or a fenced lease counts as a lost node, a machine that went back as preempted."""
    kind = {"sandbox": "node_lost", "fenced": "node_lost", "reclaimed": "preempted"}.get(cause, cause)
    return cause in NODE_CAUSES and kind in retry.on


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The money of one run in micro-units: cost = payout + fee, never more than what was held."""

    billed_seconds: int
    cost: int
    payout: int
    fee: int


def settle(
    *,
    started_at_ms: int | None,
    until_ms: int,
    granted_at_ms: int,
    now_ms: int,
    price: int,
    devices_milli: int,
    held: int,
    fee_basis_points: int,
) -> Settlement:
    """Bill the time that signed evidence proves, from the node's start to its last word.

    The node's clock gives the length; the exchange's own clock bounds it: no run is longer than its lease has
    existed. A run that never started costs nothing.
    """
    seconds = 0
    if started_at_ms is not None:
        proven = billed_seconds(started_at_ms, until_ms)
        seconds = min(proven, billed_seconds(granted_at_ms, now_ms))
    cost = min(charge(price_per_device_hour=price, devices_milli=devices_milli, seconds=seconds), held)
    payout, fee = split_charge(cost, fee_basis_points=fee_basis_points)
    return Settlement(billed_seconds=seconds, cost=cost, payout=payout, fee=fee)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What to hold for a job in micro-units, and whether it is held in full or ten minutes at a time."""

    amount: int
    mode: str


def hold_for(*, price: int, devices_milli: int, seconds: int, max_cost: int | None, available: int) -> Hold:
    """The hold for a job at `price`: max_cost, else price x duration, else ten minutes ahead, rolling.

    An amount above `available` means that the wallet does not even cover the least.
    """
    whole = charge(price_per_device_hour=price, devices_milli=devices_milli, seconds=seconds)
    if max_cost is not None:
        return Hold(amount=max_cost, mode="full")
    if whole <= available:
        return Hold(amount=whole, mode="full")
    return Hold(amount=rolling_step(price=price, devices_milli=devices_milli), mode="rolling")


def rolling_step(*, price: int, devices_milli: int) -> int:
    """Ten minutes' worth, in micro-units."""
    return charge(price_per_device_hour=price, devices_milli=devices_milli, seconds=ROLLING_SECONDS)


def affordable_seconds(*, price: int, devices_milli: int, budget: int) -> int | None:
    """The whole seconds that `budget` micro-units buy; None: any number, as the price is zero."""
    if price == 0:
        return None
    return budget * 1000 * 3600 // (price * devices_milli)
