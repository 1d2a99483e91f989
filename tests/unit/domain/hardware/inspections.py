"""Inspections as tests need them: a healthy card's, with changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perak.domain.hardware import inspection as names
from perak.domain.hardware.inspection import Check, DeviceIdentity, DeviceInspection, Kind, Sample

V100 = "Tesla V100-SXM2-16GB"
START = 1_790_000_000_000
HEALTHY: dict[str, float] = {
    **dict.fromkeys(
        (
            names.MEMORY_MOVING_INVERSIONS, names.MEMORY_ADDRESS, names.MEMORY_RANDOM,
            names.MEMORY_CHECKERBOARD, names.MEMORY_BIT_FADE, names.MEMORY_BLOCK_MOVE, names.COMPUTE_STABLE,
            names.SOAK_SLOWDOWN, names.SOAK_ERRORS, names.SOAK_CLOCK_DRIFT, names.SOAK_THROUGHPUT_DRIFT,
            names.ECC_VOLATILE_CORRECTED, names.ECC_VOLATILE_UNCORRECTED, names.ECC_AGGREGATE_CORRECTED,
            names.ECC_AGGREGATE_UNCORRECTED, names.ECC_SRAM_THRESHOLD, names.RETIRED_PAGES,
            names.RETIREMENT_PENDING, names.REMAPPED_ROWS, names.REMAP_PENDING, names.REMAP_FAILED,
            names.REMAP_EXHAUSTED_BANKS, names.XID, names.THROTTLE, names.PROCESSES, names.PCIE_REPLAYS,
            names.NVLINK_INACTIVE, names.NVLINK_ERRORS, names.IDENTITY_PCI, names.IDENTITY_UUID,
        ),
        0.0,
    ),
    names.MEMORY_SHARE: 0.96, names.MEMORY_SPEED: 0.8,
    names.COMPUTE_FP32: 1e-6, names.COMPUTE_FP16: 1e-3, names.COMPUTE_FP64: 1e-15,
    names.FP32: 14.2, names.FP16: 28.0, names.FP64: 7.0, names.COPY: 750.0,
    names.TO_DEVICE: 12.0, names.FROM_DEVICE: 12.5, names.TENSOR_FP16: 95.0,
    names.SOAK_SECONDS: 1800.0, names.SOAK_TEMPERATURE: 68.0, names.SOAK_POWER: 0.97,
    names.ENERGY_COUNTER: 4.0e5, names.PCIE_GENERATION: 3.0, names.PCIE_WIDTH: 16.0,
    names.IDENTITY_MODEL: 1.0, names.IDENTITY_MEMORY: 0.99, names.IDENTITY_UNITS: 1.0,
    names.IDENTITY_BANDWIDTH: 0.83, names.IDENTITY_FLOPS: 0.9,
}  # fmt: skip


def identity(**changes: Any) -> DeviceIdentity:
    fields: dict[str, Any] = {
        "uuid": "GPU-1", "model": V100, "kind": "nvidia", "index": 0, "serial": "0324817012345",
        "vbios": "88.00.13.00.02", "driver": "550.54.15", "pci_bus": "0000:3b:00.0",
        "pci_ids": "10de:1db1:10de:1212", "nvml_name": V100, "nvml_memory_bytes": 16 * 2**30,
        "compute_capability": "7.0", "ecc_enabled": True, "power_limit_watts": 300.0,
        "opencl_platforms": ("NVIDIA CUDA",), "pcie_generation_card": 3, "pcie_width_card": 16,
        "pcie_generation_slot": 3, "pcie_width_slot": 16,
    }  # fmt: skip
    return DeviceIdentity(**(fields | changes))


def inspection(
    changes: Mapping[str, float | Check | None] | None = None,
    *,
    kind: Kind = "soak",
    at: int = START,
    uuid: str = "GPU-1",
    xids: tuple[int, ...] = (),
    **of_identity: Any,
) -> DeviceInspection:
    """A healthy V100's, but for `changes` by check: a value, a Check, or None for one that did not run."""
    checks = []
    for name, value in {**HEALTHY, **(changes or {})}.items():
        if isinstance(value, Check):
            checks.append(value)
        elif value is None or (kind != "soak" and names.BY_NAME[name].soak):
            checks.append(Check(name=name, status="not_run", reason="it can't be read here"))
        else:
            unit = names.BY_NAME[name].unit
            checks.append(Check(name=name, status="passed", value=value, unit=unit, source="test"))
    samples = tuple(
        Sample(
            at_seconds=60.0 * minute, celsius=min(68.0, 40 + 4.0 * minute), clock_mhz=1455.0 - minute % 3,
            watts=285.0 + minute % 4, tflops=14.2,
        )
        for minute in range(30)
    )  # fmt: skip
    return DeviceInspection(
        identity=identity(uuid=uuid, **of_identity),
        kind=kind,
        trigger="enrolment",
        started_at=at,
        ended_at=at + 1_900_000,
        checks=names.complete(checks),
        samples=samples if kind == "soak" else (),
        xids=xids,
        software="perak 0.1.0",
    )


def failed(name: str, reason: str = "a mismatch at 0x2a, mask 0x1", value: float = 1.0) -> Check:
    return Check(name=name, status="failed", reason=reason, value=value)
