"""The offer of this node: the machine, less what is kept back, at the provider's prices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from perak.agent.probe.machine import Machine
from perak.agent.provider import Provider, granted
from perak.domain.errors import InvalidInput
from perak.domain.offer import Device, OfferAsk, SandboxTier

if TYPE_CHECKING:
    from perak.agent.sandbox import TierReport


NOTHING_LEFT_OUT: Mapping[str, str] = MappingProxyType({})


class NothingToOffer(InvalidInput):
    """The machine or the provider's file leaves nothing to offer; the message says what to change."""

    code = "nothing_to_offer"


def build_ask(
    machine: Machine,
    provider: Provider,
    *,
    devices: Sequence[Device],
    tier: TierReport,
    pythons: tuple[str, ...],
    torch_variants: tuple[str, ...] = (),
    takes: tuple[str, ...] = (),
    tiers: tuple[SandboxTier, ...] = (),
    left_out: Mapping[str, str] = NOTHING_LEFT_OUT,
) -> OfferAsk:
    """The ask to post; `left_out`: devices that are not in `devices`, and why. Raises NothingToOffer."""
    if provider.price_cpu is None and (provider.price_gpu is None or not devices):
        raise NothingToOffer(_no_price(has_devices=bool(devices), left_out=left_out))
    cpu_milli = machine.cpu_milli - provider.reserve_cpu_milli
    memory_bytes = machine.memory_bytes - provider.reserve_memory_bytes
    disk_bytes = machine.disk_bytes - provider.reserve_disk_bytes
    for left, name, there in (
        (cpu_milli, "cpu", f"{machine.cpu_milli / 1000:g} cores"),
        (memory_bytes, "memory", f"{machine.memory_bytes / 1e9:.1f} GB"),
        (disk_bytes, "disk", f"{machine.disk_bytes / 1e9:.1f} GB free"),
    ):
        if left <= 0:
            raise NothingToOffer(
                f"Of the {there} of this machine nothing is left to offer: "
                f"lower `reserve: {{{name}: ...}}` in the provider file, or make room."
            )
    return OfferAsk(
        region=provider.region,
        cpu_model=machine.cpu_model,
        cpu_milli=cpu_milli,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        devices=tuple(devices) if provider.price_gpu is not None else (),
        price_gpu=provider.price_gpu if devices else None,
        price_cpu=provider.price_cpu,
        hours=provider.hours,
        pythons=pythons,
        torch_variants=torch_variants if devices else (),
        takes=takes,
        left_out=dict(left_out),
        tier=tier.tier,
        runtime=tier.runtime,
        enforced=tier.enforced,
        unenforced=tier.unenforced,
        tiers=tiers,
        # Only root may put a process into another user's sandbox.
        grants=tuple(each for each in granted(provider) if each != "terminals" or os.geteuid() == 0),
        min_duration_seconds=provider.min_duration_seconds,
        available_until_ms=provider.available_until_ms,
        reclaim_notice_seconds=provider.reclaim_notice_seconds,
    )


def unpriced(provider: Provider, devices: Sequence[Device]) -> list[str]:
    """What the machine has but does not offer for want of a price, for people."""
    lines = []
    if devices and provider.price_gpu is None:
        lines.append(f"{len(devices)} GPU(s) are not offered: set `prices: {{gpu: 0.20/h}}` or --price-gpu")
    if provider.price_cpu is None:
        lines.append("the CPU is not offered to CPU jobs: set `prices: {cpu: 0.02/h}` or --price-cpu")
    return lines


def _no_price(*, has_devices: bool, left_out: Mapping[str, str]) -> str:
    if left_out:
        whats = "; ".join(f"{uuid}: {why}" for uuid, why in left_out.items())
        return f"No device is fit to be offered ({whats}), and the CPU has no price: give --price-cpu 0.02."
    flag = "--price-gpu 0.20 or --price-cpu 0.02" if has_devices else "--price-cpu 0.02"
    return f"No price, no offer: give {flag}, or `prices:` in the provider file (per device-hour)."
