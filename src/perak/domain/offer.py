"""What a provider offers: a divisible vector of a node's devices, CPU, memory and disk, at posted prices."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from perak.domain.hardware.standing import UNGRADED, Standing
from perak.domain.isolation import choose_tier, suffices
from perak.domain.whereabouts import CLAIMED, Whereabouts

GRANTS = ("network", "terminals")
"""What a provider may forbid: `network`, the addresses that a job names; `terminals`, commands, ssh and ports
in the sandbox of a renter's own job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU of a node. `uuid` is the driver's; `kind` is nvidia, amd or cpu.

    `cuda`: the newest CUDA release that the driver knows, like ``12.4``.
    """

    index: int
    kind: str
    model: str
    uuid: str
    memory_bytes: int
    compute_capability: str | None = None
    driver: str | None = None
    cuda: str | None = None
    power_limit_watts: float | None = None


TAKES = ("image", "https", "s3", "job")
"""Container images, and inputs by where they come from; a node with no room to keep any takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """When the offer is open, in UTC: minutes of the day [start, end), on ISO weekdays 1..7.

    An `end` not after `start` means past midnight.
    """

    start_minute: int
    end_minute: int
    weekdays: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)

    def open_at(self, *, weekday: int, minute: int) -> bool:
        """Whether the offer is open at that minute of that ISO weekday (UTC)."""
        if self.start_minute < self.end_minute:
            return weekday in self.weekdays and self.start_minute <= minute < self.end_minute
        yesterday = weekday - 1 or 7
        return (weekday in self.weekdays and minute >= self.start_minute) or (
            yesterday in self.weekdays and minute < self.end_minute
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxTier:
    """A sandbox tier that a node offers, of `perak.domain.isolation.RANKS`, and what was seen to hold in it.

    `runtime`: the program and its version. `devices`: whether runs with GPUs can be in it. `checklist`: the
    digest of the escape checklist's result in it, empty where the node sent none.
    """

    tier: str
    runtime: str = ""
    enforced: tuple[str, ...] = ()
    unenforced: dict[str, str] = field(default_factory=dict)
    devices: bool = True
    checklist: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferAsk:
    """The standing, binding ask as the node posts it. Prices are micro-units per device-hour.

    A CPU device is one core: `price_cpu` is per core-hour. None: not offered.
    """

    region: str
    cpu_model: str
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    devices: tuple[Device, ...] = ()
    price_gpu: int | None = None
    price_cpu: int | None = None
    hours: tuple[Hours, ...] = ()
    """Empty: always open."""
    pythons: tuple[str, ...] = ()
    """Versions like ``3.11`` that job environments can be built on."""
    torch_variants: tuple[str, ...] = ()
    """CUDA variants of PyTorch, like ``cu126``, that the node may install besides PyPI's."""
    takes: tuple[str, ...] = ()
    """What else a job may bring along, of TAKES."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Devices that are there and not offered, by UUID, and why."""
    tier: str = "bubblewrap"
    runtime: str = ""
    enforced: tuple[str, ...] = ()
    unenforced: dict[str, str] = field(default_factory=dict)
    tiers: tuple[SandboxTier, ...] = ()
    """Every tier that passed, the default one first, which `tier` and the three after it describe too; empty
    from an agent that knows only one."""
    grants: tuple[str, ...] = ()
    """What jobs may have here beyond their resources, of GRANTS; what the provider forbids isn't among it."""
    min_duration_seconds: int = 0
    """Jobs that may not run for as long (their max_duration) are not taken."""
    available_until_ms: int | None = None
    """When the provider takes it back, in Unix milliseconds; every lease ends by then. None: never."""
    reclaim_notice_seconds: int = 0
    """How long before that, or before an earlier end, the provider tells renters; 0: it promises none."""

    @property
    def available_until(self) -> datetime | None:
        """When the provider takes it back (aware, UTC); None: never."""
        if self.available_until_ms is None:
            return None
        return datetime.fromtimestamp(self.available_until_ms / 1000, UTC)

    def seconds_left(self, *, now: datetime) -> int | None:
        """Until the offer ends; None: it has no end."""
        if self.available_until_ms is None:
            return None
        return max(0, (self.available_until_ms - int(now.timestamp() * 1000)) // 1000)

    def sandboxes(self) -> tuple[SandboxTier, ...]:
        """The tiers, the default one first; never empty."""
        default = SandboxTier(
            tier=self.tier, runtime=self.runtime, enforced=self.enforced, unenforced=self.unenforced
        )
        return self.tiers or (default,)

    def sandbox(self, tier: str | None) -> SandboxTier:
        """The tier of that name, the default one where there is none such."""
        found = self.sandboxes()
        return next((each for each in found if each.tier == tier), found[0])

    def tier_for(self, least: str | None, *, with_devices: bool) -> str | None:
        """The tier for a job that asks for `least`: the default one where it suffices, else the lightest."""
        names = tuple(each.tier for each in self.sandboxes() if each.devices or not with_devices)
        if self.tier in names and suffices(self.tier, least):
            return self.tier
        return choose_tier(names, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A part of an offer that is somebody's from `start_at` until `end_at` (aware, UTC)."""

    start_at: datetime
    end_at: datetime
    devices: tuple[str, ...]
    """UUIDs."""
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An offer as the market sees it: the ask and what of it is free now."""

    id: str
    version: int
    node: str
    node_name: str
    provider: str
    """The provider's project."""
    state: str
    ask: OfferAsk
    free_cpu_milli: int
    free_memory_bytes: int
    free_disk_bytes: int
    free_devices: tuple[Device, ...] = ()
    accepting: bool = True
    """The node is online and neither paused, drained nor suspected."""
    standings: dict[str, Standing] = field(default_factory=dict)
    """What the exchange knows of the devices, by UUID."""
    where: Whereabouts = CLAIMED
    """What supports the region that the ask claims."""
    reserved: tuple[Claim, ...] = ()
    """Windows for which parts are kept whose run has not begun: the free parts are theirs then."""
    taken: tuple[Claim, ...] | None = None
    """Every window, live lease and held quote, by when each ends at the latest; None: not looked up."""

    def standing_of(self, device: Device) -> Standing:
        """What is known of a device; of one that was never inspected, nothing."""
        return self.standings.get(device.uuid, UNGRADED)
