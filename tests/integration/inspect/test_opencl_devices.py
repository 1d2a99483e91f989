"""Which devices there are, by what OpenCL's platforms show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyopencl as cl
import pytest

from perak.agent.inspect import opencl


def card(name: str, bus: int | None, **more: Any) -> SimpleNamespace:
    """A GPU as a platform describes it; `bus` None: this platform does not tell its place."""
    place = {} if bus is None else {"pci_bus_id_nv": bus, "pci_slot_id_nv": 0, "pci_domain_id_nv": 0}
    return SimpleNamespace(
        type=cl.device_type.GPU, name=name, vendor="NVIDIA", version="OpenCL 3.0", global_mem_size=2**34,
        max_mem_alloc_size=2**32, max_compute_units=80, max_clock_frequency=1530, local_mem_size=49_152,
        **place, **more,
    )  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, **platforms: list[SimpleNamespace]) -> list[opencl.Shown]:
    made = [
        SimpleNamespace(name=name.replace("_", " "), get_devices=lambda devices=devices: devices)
        for name, devices in platforms.items()
    ]
    monkeypatch.setattr(opencl, "_platforms", lambda: made)
    return opencl.find()


def test_one_card_through_two_platforms_is_one_device_by_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(
        monkeypatch,
        Portable_Computing_Language=[card("V100 by pocl", 0x3B)],
        NVIDIA_CUDA=[card("Tesla V100", 0x3B), card("Tesla V100", 0x5E)],
    )
    assert [(each.pci_bus, each.name) for each in found] == [
        ("0000:3b:00.0", "Tesla V100"), ("0000:5e:00.0", "Tesla V100"),
    ]  # fmt: skip
    assert found[0].platforms == ("Portable Computing Language", "NVIDIA CUDA")


def test_two_alike_that_do_not_tell_their_places_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(monkeypatch, Some_Maker=[card("Arc A770", None), card("Arc A770", None)])
    assert [each.place for each in found] == ["Arc A770#0", "Arc A770#1"]


def test_without_a_platform_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> list[object]:
        raise cl.LogicError("clGetPlatformIDs", -1001, "")

    monkeypatch.setattr(cl, "get_platforms", none)
    assert opencl.find() == []
