"""The devices to inspect: what OpenCL and the vendors' drivers show, put together by their place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from perak.agent.inspect import amd, nvml, pci
from perak.agent.inspect.opencl import Shown, find
from perak.domain.hardware.inspection import DeviceIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One device. `shown`: by OpenCL, `card`: by its driver; None where that does not know it."""

    index: int
    place: str
    shown: Shown | None
    card: nvml.Card | amd.Card | None
    identity: DeviceIdentity
    why_no_card: str = ""
    gone: str | None = None
    """Why its driver does not know it any more, though it is still in the driver's list."""


def targets() -> list[Target]:
    """Every device once: GPUs in the order of the drivers, then the others, the processor last."""
    cards, why = _cards()
    shown = find()
    found: list[Target] = []
    for card in cards:
        same = next((each for each in shown if _is_same(each, card)), None)
        if same is not None:
            shown.remove(same)
        found.append(make_target(len(found), same, card, ""))
    for each in shown:
        found.append(
            make_target(
                len(found), each, None, why if not each.is_cpu else "a processor has no driver that tells"
            )
        )
    return found


def _cards() -> tuple[list[nvml.Card | amd.Card], str]:
    cards, why = nvml.cards()
    others, why_not = amd.cards()
    return [*cards, *others], f"{why}; {why_not}"


def _is_same(shown: Shown, card: nvml.Card | amd.Card) -> bool:
    """By the bus; a single card that does not tell its place, by its maker."""
    return not shown.is_cpu and shown.pci_bus is not None and shown.pci_bus == card.bus


def make_target(index: int, shown: Shown | None, card: nvml.Card | amd.Card | None, why: str) -> Target:
    bus = card.bus if card is not None else shown.pci_bus if shown is not None else None
    place = bus or (card.uuid if card is not None else shown.place if shown is not None else "")
    told: dict[str, Any] = {}
    gone = None
    try:
        told = dict(card.identity()) if card is not None else {}
    except nvml.CardLost as error:
        gone = str(error)
    if shown is not None:
        told |= {
            "opencl_name": shown.name[:200],
            "opencl_vendor": shown.vendor[:200],
            "opencl_platforms": tuple(each[:200] for each in shown.platforms),
            "opencl_version": shown.version[:200],
            "opencl_pci_bus": shown.pci_bus,
            "opencl_memory_bytes": shown.memory_bytes,
            "opencl_compute_units": shown.compute_units,
            "opencl_clock_mhz": shown.clock_mhz,
        }
        told["compute_capability"] = told.get("compute_capability") or shown.compute_capability
    identity = DeviceIdentity(
        uuid=card.uuid if card is not None else _made_uuid(shown),
        model=(told.get("nvml_name") or told.get("opencl_name") or "unknown")[:200],
        kind=_kind(shown, card),
        index=index,
        **{name: value for name, value in told.items() if value is not None},
    )
    return Target(
        index=index,
        place=place,
        shown=shown,
        card=card,
        identity=_with_bus(identity, bus),
        why_no_card=why,
        gone=gone,
    )


def _with_bus(identity: DeviceIdentity, bus: str | None) -> DeviceIdentity:
    there = pci.look(bus)
    if there is None:
        return identity
    return replace(
        identity,
        pci_bus=bus,
        pci_ids=there.ids,
        pcie_generation_card=identity.pcie_generation_card or there.generation_card,
        pcie_width_card=there.width_card or identity.pcie_width_card,
        pcie_generation_slot=there.generation_slot or identity.pcie_generation_slot,
        pcie_width_slot=there.width_slot,
    )


def _kind(shown: Shown | None, card: nvml.Card | amd.Card | None) -> str:
    if card is not None:
        return "nvidia" if isinstance(card, nvml.Card) else "amd"
    assert shown is not None
    if shown.is_cpu:
        return "cpu"
    vendor = shown.vendor.lower()
    return "nvidia" if "nvidia" in vendor else "intel" if "intel" in vendor else "amd"


def _made_uuid(shown: Shown | None) -> str:
    """For a device without one of its maker's: the same as long as it stays where it is."""
    assert shown is not None
    text = f"{shown.vendor}\n{shown.name}\n{shown.place}\n{shown.memory_bytes if not shown.is_cpu else ''}"
    return f"CL-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
