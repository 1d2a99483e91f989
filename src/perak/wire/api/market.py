"""Quotes and offers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from perak.wire.api.base import Model, Money, Request
from perak.wire.api.exchange import TRUST
from perak.wire.api.nodes import TierView


class MisfitView(Model):
    dimension: str
    needed: str
    available: str
    now_only: bool


class AlternativeView(Model):
    """The least bill of one kind of seller; `seller` None: no comparable offer is in the table."""

    kind: str
    seller: str | None
    gpu: str
    bill: Money | None
    saving: Money | None
    saving_percent: int | None
    points: int
    date: str
    source: str
    storage: Money | None = None
    """What of their bill is for disk."""
    transfer: Money | None = None
    """What of it is for data that leaves."""


class ComparisonView(Model):
    """The job's bill here and elsewhere; `per_hour`: an hour's, as nothing is known of the work.

    `included` and `left_out`: what is on the bills elsewhere beside the devices, and what is not.
    """

    bill: Money
    per_hour: bool
    alternatives: list[AlternativeView]
    included: list[str] = []
    left_out: list[str] = []
    terms: str = ""
    """Both in one line."""


class OfferQuote(Model):
    """What the job would cost on one offer. Money in the exchange's currency; carbon in grams CO2e.

    `cost_max` is for the job's max_duration; `per_hour` is price x devices.
    """

    offer: str
    node_name: str
    region: str
    device: str
    fits: bool
    misfits: list[MisfitView]
    price: Money | None
    per_hour: Money | None
    cost_max: Money | None
    energy_watts: float | None
    carbon_grams_per_hour: float | None
    carbon_source: str | None
    tier: str
    grants: list[str] = []
    unenforced: dict[str, str]
    region_evidence: str = "declared"
    """What supports the offer's region: declared, latency, address or operator."""
    available_until: datetime | None = None
    """When the offer ends: every lease ends by then."""
    reclaim_notice_seconds: int = 0
    """How long before that, or before its owner takes the node back, renters are told; 0: no promise."""
    old_or_new: str | None = None
    """Below which grid intensity this card is greener than a new one, in one line."""
    cloud_comparison: str | None = None
    """The comparison in one line; None: nothing to compare with."""
    market_class: str = ""
    """What is alike to the market: model, region, grade."""
    expected_seconds: float | None = None
    """Until it has ended well, faults included; with its interval. None: nothing is known of its work."""
    expected_seconds_low: float | None = None
    expected_seconds_high: float | None = None
    time_source: str | None = None
    """``history``, ``declared work`` or ``roofline``."""
    time_detail: str | None = None
    expected_cost: Money | None = None
    """Lost work included, which is `lost_cost` of it."""
    lost_cost: Money | None = None
    energy_joules: float | None = None
    carbon_grams: float | None = None
    failure_risk: float | None = None
    """The probability that a fault of device or node cuts the run short; None: not known."""
    burden: Money | None = None
    """Cost, carbon and delay at the renter's prices: what offers are ranked by. Of an hour on a reference GPU
    where nothing is known of the work."""
    utility: Money | None = None
    """The job's value less its burden; None: no value was given, or nothing is known of the work."""
    pareto: bool = False
    """No other fitting offer is better in cost, time and carbon at once."""
    comparison: ComparisonView | None = None


class RelaxationView(Model):
    """Requirements to give way in (dimension -> what it would become), and what would then fit."""

    changes: dict[str, str]
    offers: int
    price_from: Money | None
    text: str


class PreferenceView(Model):
    """What carbon and delay count for, in the exchange's currency; `name`: the preset that it is."""

    name: str | None
    carbon_price_per_kg: Money
    delay_cost_per_hour: Money
    value: Money | None
    text: str


class WaitingView(Model):
    """When a job that may wait would start, as things are foretold, and what that saves against starting now.

    `start_at` None: it starts now. Saved: operational CO2e in grams, and cost; below zero is more than now,
    as the preference trades one for the other; None: not known. It is no claim, and no total has it.
    """

    offer: str
    node_name: str
    start_at: datetime | None
    saved_carbon_grams: float | None
    saved_cost: Money | None
    text: str


class Quote(Model):
    """The fitting offers, the best for the renter first, then those that don't fit with what failed."""

    currency: str
    product: Literal["on-demand", "deferrable", "reserved"] = "on-demand"
    """What is bought; of what is reserved, `window_start` and `window_end` say when."""
    window_start: datetime | None = None
    window_end: datetime | None = None
    preference: PreferenceView | None = None
    relaxations: list[RelaxationView] = []
    waiting: WaitingView | None = None
    """Of a job with a start window for which something fits now."""
    max_duration_seconds: int
    hold: Money
    affordable: bool
    offers: list[OfferQuote]
    trust: str = TRUST


class HeldQuote(Model):
    """A part of an offer that is kept for the project until `expires_at`, at a firm price per device-hour.

    What is expected of the job there is as in `OfferQuote`, at that price.
    """

    id: str
    offer: str
    node_name: str
    price: Money
    currency: str
    expires_at: datetime
    expected_seconds: float | None = None
    expected_cost: Money | None = None
    energy_watts: float | None = None
    energy_joules: float | None = None
    carbon_grams: float | None = None
    carbon_grams_per_hour: float | None = None
    carbon_source: str | None = None
    failure_risk: float | None = None


class Why(Model):
    """Why a job is where it is, or waits; `price_now`: what would place a waiting job at once.

    `then`: the offers that it would have liked next, as they were at `placed_at`; None: that was not kept.
    `elsewhere`: other offers as they are now.
    """

    job: str
    state: str
    reasons: list[str]
    placed_at: datetime | None = None
    then: list[str] | None = None
    elsewhere: list[str]
    price_now: Money | None
    currency: str


class DeviceView(Model):
    index: int
    kind: str
    model: str
    uuid: str
    memory_bytes: int
    compute_capability: str | None
    free: bool
    grade: str = "ungraded"
    """As people read it: ``A``, ``A, no ECC``, ``B (provisional)``."""


class Offer(Model):
    """A standing offer. Prices per device-hour; a CPU device is one core.

    `left_out`: devices of the node that are not offered, by UUID, and why. `tiers`: every sandbox tier, the
    default one first.
    """

    id: str
    version: int
    node: str
    node_name: str
    state: str
    accepting: bool
    region: str
    region_evidence: str = "declared"
    """What supports the region: declared, latency, address or operator."""
    region_detail: str = ""
    region_refused: str | None = None
    """Why the region can't be true: such an offer gets no work."""
    cpu_model: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    free_cpu_milli: int
    free_memory_bytes: int
    free_disk_bytes: int
    devices: list[DeviceView]
    price_gpu: Money | None
    price_cpu: Money | None
    pythons: list[str]
    torch_variants: list[str] = []
    takes: list[str] = []
    grants: list[str] = []
    left_out: dict[str, str] = {}
    tier: str
    runtime: str
    enforced: list[str]
    unenforced: dict[str, str]
    tiers: list[TierView] = []
    min_duration_seconds: int = 0
    """Jobs that may not run for as long are not taken."""
    available_until: datetime | None = None
    """Every lease ends by then."""
    reclaim_notice_seconds: int = 0
    """How long before an end renters are told; 0: no promise."""


class OfferChange(Request):
    """What a provider may set on its offer. Leases that run keep their price. `default` restores a price to
    the node's provider file."""

    state: Literal["open", "paused"] | None = None
    price_gpu: Money | Literal["default"] | None = None
    price_cpu: Money | Literal["default"] | None = None
