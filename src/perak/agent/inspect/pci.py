"""What the bus itself says of a device, by Linux's /sys: its ids, and how wide and fast its link is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check, DeviceIdentity

DEVICES = Path("/sys/bus/pci/devices")
GENERATIONS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}
"""By GT/s of a lane: PCI Express Base Specification, revision 6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One PCI device. Of the slot: what the port above it can do. None: the kernel does not say."""

    ids: str | None
    generation_now: int | None
    width_now: int | None
    generation_card: int | None
    width_card: int | None
    generation_slot: int | None
    width_slot: int | None


def look(bus: str | None, *, devices: Path = DEVICES) -> Place | None:
    """The device at ``0000:3b:00.0``; None where the kernel has none there."""
    if bus is None or not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", bus):
        return None
    folder = devices / bus
    if not folder.exists():
        return None
    port = folder.resolve().parent
    names = ("vendor", "device", "subsystem_vendor", "subsystem_device")
    ids = [(_line(folder / name) or "").removeprefix("0x") for name in names]
    return Place(
        ids=":".join(ids) if all(ids) else None,
        generation_now=_generation(folder / "current_link_speed"),
        width_now=_width(folder / "current_link_width"),
        generation_card=_generation(folder / "max_link_speed"),
        width_card=_width(folder / "max_link_width"),
        generation_slot=_generation(port / "max_link_speed"),
        width_slot=_width(port / "max_link_width"),
    )


def link_checks(identity: DeviceIdentity, *, generations: list[int], widths: list[int]) -> Iterator[Check]:
    """The best that was seen under load, against what card and slot can both do.

    A link saves power when it is idle, so only what it does under load counts. A slot or riser that is
    narrower than the card is the machine's limit, and is written down as such.
    """
    for name, seen, card, slot in (
        (i.PCIE_GENERATION, generations, identity.pcie_generation_card, identity.pcie_generation_slot),
        (i.PCIE_WIDTH, widths, identity.pcie_width_card, identity.pcie_width_slot),
    ):
        unit = i.BY_NAME[name].unit
        if not seen or card is None:
            yield Check(
                name=name, status="not_run", reason="neither driver nor bus tells its link", unit=unit
            )
            continue
        most = card if slot is None else min(card, slot)
        limit = f"the machine's slot allows {slot}, the card {card}" if slot and slot < card else ""
        yield Check(
            name=name,
            status="passed" if max(seen) >= most else "failed",
            reason=limit,
            value=max(seen),
            unit=unit,
            threshold=most,
            source="NVML, PCI",
        )


def _generation(path: Path) -> int | None:
    """Of ``16.0 GT/s PCIe``."""
    match = re.match(r"([0-9.]+) GT/s", _line(path) or "")
    return GENERATIONS.get(f"{float(match[1]):g}") if match else None


def _width(path: Path) -> int | None:
    text = _line(path) or ""
    return int(text) if text.isdigit() and 0 < int(text) <= 32 else None


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
