"""Providers' machines: their health, checklists, invites and enrolment."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from perak.wire.api.base import Model, Money, Name, Request

Mode = Literal["accepting", "paused", "draining"]
"""What an owner can say of a machine."""
RECLAIM_SECONDS_MAX = 366 * 86_400
"""No plan for a machine reaches further, and no run lasts as long."""


class TemperatureView(Model):
    """One temperature of a node. It is `hot` from `hot_celsius` on, where the part slows itself."""

    id: str
    name: str
    celsius: float
    hot_celsius: float
    limit_source: str
    hot: bool


class WindowView(Model):
    """A window that is kept on a node for a renter: cores in thousandths, bytes of memory, price per
    device-hour."""

    start_at: datetime
    end_at: datetime
    devices: list[str]
    cpu_milli: int
    memory_bytes: int
    price: Money


class Node(Model):
    """A provider's machine. A draining node is `drained` once it has no lease left."""

    id: str
    name: str
    project: str
    state: str
    mode: Literal["accepting", "paused", "draining", "drained"]
    last_seen: datetime | None
    enrolled_at: datetime
    agent_version: str | None
    notice: str | None = None
    """What the exchange last had to say to its owner: a wrong clock, a second agent with its key."""
    notice_at: datetime | None = None
    temperatures: list[TemperatureView] = []
    """As the node last reported them, at `health_at`; a part that tells none is absent."""
    health_at: datetime | None = None
    offer: str | None
    live_leases: int
    reclaim_at: datetime | None = None
    """When its owner takes the draining node back: what still runs then is stopped. None: at no time."""
    reservations: list[WindowView] = []
    """Windows to come and those that last, the next first; a node that is away or paused at the start of one
    loses it to another."""


class NodeChange(Request):
    """What the owner wants: `paused` and `draining` give the node no new leases; runs go on to their end.

    `within_seconds`, with `draining` alone: the owner takes the node back after so long, and runs that have
    not ended by then are stopped. While there are any it is no less than the offer's notice.
    """

    mode: Mode
    within_seconds: int | None = Field(default=None, ge=0, le=RECLAIM_SECONDS_MAX)


class TierView(Model):
    """A sandbox tier of an offer. `devices`: whether GPU jobs can be in it; `checklist`: the digest of the
    escape checklist's result."""

    tier: str
    runtime: str
    enforced: list[str]
    unenforced: dict[str, str]
    devices: bool
    checklist: str | None


class CheckView(Model):
    """One check of the escape checklist. `detail`: what was open, or why it did not run."""

    name: str
    outcome: Literal["passed", "failed", "not_run"]
    detail: str


class ChecklistView(Model):
    """How the escape checklist came out in one sandbox tier of a node. `at`: Unix milliseconds.

    `jws` is the node's report that says so, with its certificates; `digest` is of the document in it.
    """

    digest: str
    node: str
    tier: str
    runtime: str
    kernel: str
    agent_version: str
    at: int
    results: list[CheckView]
    jws: str


class InviteCreate(Request):
    ttl_seconds: int = Field(default=3600, ge=60, le=30 * 86400)
    uses: int = Field(default=1, ge=1, le=1000)


class Invite(Model):
    """`token` is shown once."""

    id: str
    token: str
    expires_at: datetime
    uses: int


class Enrolment(Request):
    """A node's public keys (base64url of 32 bytes each) and its name, with the secret of the invite."""

    secret: str = Field(max_length=200)
    name: Name
    sign_key: str = Field(max_length=64)
    seal_key: str = Field(max_length=64)


class Enrolled(Model):
    """The node's id and its certificate chain (PEM: node, then CA)."""

    node: str
    exchange: str
    certificate_chain: str
