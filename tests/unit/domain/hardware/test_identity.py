"""Known frauds: what a device says, against what was measured of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perak.domain.hardware import inspection as i
from perak.domain.hardware.identity import Measured, judge_identity, mismatch
from perak.domain.hardware.inspection import Check, DeviceIdentity
from perak.domain.hardware.specs import find_gpu

GIB = 2**30
NAME = "NVIDIA GeForce RTX 3090"


def spec_ids() -> str:
    spec = find_gpu(NAME)
    assert spec is not None
    return f"{spec.pci_ids[0]}:1458:4043"


HONEST = DeviceIdentity(
    uuid="GPU-1",
    model=NAME,
    kind="nvidia",
    index=0,
    pci_bus="0000:3b:00.0",
    pci_ids=spec_ids(),
    nvml_name=NAME,
    nvml_memory_bytes=24 * GIB,
    nvml_pci_ids=spec_ids(),
    nvml_cores=10496,
    compute_capability="8.6",
    opencl_name=NAME,
    opencl_pci_bus="0000:3b:00.0",
    opencl_compute_units=82,
)
FOUND = Measured(
    memory_bytes=int(23.6 * GIB), copy_gbs=850.0, fp32_tflops=33.0, slowdown=1.02, slowdown_reason="2 devices"
)


def judged(identity: DeviceIdentity = HONEST, found: Measured = FOUND, *earlier: str) -> dict[str, Check]:
    return {check.name: check for check in judge_identity(identity, found, earlier_uuids=earlier)}


def failed(identity: DeviceIdentity = HONEST, found: Measured = FOUND, *earlier: str) -> set[str]:
    return {check.name for check in mismatch(judged(identity, found, *earlier).values())}


def test_an_honest_card_is_what_it_says() -> None:
    assert {check.status for check in judged().values()} == {"passed"}


def test_one_card_shown_as_eight_is_slowed_by_itself() -> None:
    assert failed(HONEST, replace(FOUND, slowdown=7.9)) == {i.IDENTITY_SEVERAL}


def test_24_gb_shown_as_48_hold_no_more_than_24() -> None:
    name = "NVIDIA RTX A6000"
    spec = find_gpu(name)
    assert spec is not None
    ids = f"{spec.pci_ids[0]}:10de:1459"
    shown = replace(
        HONEST, model=name, nvml_name=name, opencl_name=name, nvml_memory_bytes=48 * GIB,
        pci_ids=ids, nvml_pci_ids=ids, nvml_cores=10752, opencl_compute_units=84,
    )  # fmt: skip
    assert failed(shown, replace(FOUND, copy_gbs=650.0)) == {i.IDENTITY_MEMORY}


def test_a_mining_card_under_another_name_is_slower_and_sold_under_other_ids() -> None:
    """A CMP 90HX: a 3080's chip with less memory, and multiply-adds at a fraction."""
    shown = replace(HONEST, pci_ids="10de:2082:10de:1555", nvml_pci_ids="10de:2082:10de:1555")
    found = replace(FOUND, memory_bytes=int(9.6 * GIB), copy_gbs=700.0, fp32_tflops=0.7)
    assert {i.IDENTITY_PCI, i.IDENTITY_MEMORY, i.IDENTITY_FLOPS} <= failed(shown, found)


def test_a_driver_that_was_taught_another_name_is_contradicted_by_opencl_and_the_bus() -> None:
    assert i.IDENTITY_MODEL in failed(replace(HONEST, opencl_name="NVIDIA GeForce RTX 3060"))
    assert i.IDENTITY_PCI in failed(replace(HONEST, pci_ids="10de:2503:1458:4043"))
    assert i.IDENTITY_PCI in failed(replace(HONEST, opencl_pci_bus="0000:5e:00.0"))
    assert i.IDENTITY_UNITS in failed(replace(HONEST, opencl_compute_units=28))


def test_a_uuid_that_changes_is_found() -> None:
    assert failed(HONEST, FOUND, "GPU-1", "GPU-0") == {i.IDENTITY_UUID}
    assert failed(HONEST, FOUND, "GPU-1") == set()


@pytest.mark.parametrize("share", [0.3, 1.6])
def test_a_card_may_be_neither_too_slow_nor_too_fast_for_its_name(share: float) -> None:
    assert i.IDENTITY_BANDWIDTH in failed(HONEST, replace(FOUND, copy_gbs=936.0 * share))


def test_what_was_not_measured_did_not_run() -> None:
    checks = judged(HONEST, Measured())
    assert not mismatch(checks.values())
    for name in (i.IDENTITY_MEMORY, i.IDENTITY_BANDWIDTH, i.IDENTITY_FLOPS, i.IDENTITY_SEVERAL):
        assert checks[name].status == "not_run"
        assert checks[name].value is None


def test_an_unknown_model_is_not_judged_by_any_sheet() -> None:
    checks = judged(replace(HONEST, model="Frobnicator 9000", nvml_name="Frobnicator 9000", opencl_name=None))
    assert checks[i.IDENTITY_MODEL].status == "not_run"
    assert checks[i.IDENTITY_FLOPS].status == "not_run"
