"""Quotes and offers."""

from __future__ import annotations

from typing import Literal

from perak.wire.api.base import Model, Money, Request
from perak.wire.api.exchange import TRUST
from perak.wire.api.nodes import TierView


class MisfitView(Model):
    dimension: str
    needed: str
    available: str
    now_only: bool


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
    cloud_comparison: str | None = None


class Quote(Model):
    """The fitting offers, cheapest first, then those that don't fit with what failed."""

    currency: str
    max_duration_seconds: int
    hold: Money
    affordable: bool
    offers: list[OfferQuote]
    trust: str = TRUST


class DeviceView(Model):
    index: int
    kind: str
    model: str
    uuid: str
    memory_bytes: int
    compute_capability: str | None
    free: bool


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


class OfferChange(Request):
    """What a provider may set on its offer. Leases that run keep their price. `default` restores a price to
    the node's provider file."""

    state: Literal["open", "paused"] | None = None
    price_gpu: Money | Literal["default"] | None = None
    price_cpu: Money | Literal["default"] | None = None
