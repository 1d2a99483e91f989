"""What an inspection of a device found: every check passed, failed, or did not run and says why.

Missing is never zero: a check that did not run has no value, and counts against `coverage`. A check that
only measures (a bandwidth) passes when it measured; whether the figure is good is the grade's business.
Times are Unix milliseconds (UTC), throughputs 1e12 operations or 1e9 bytes a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not_run"]
Kind = Literal["quick", "full", "soak"]
Trigger = Literal["enrolment", "schedule", "fault", "hand"]

VERSION = 1
MISMATCHES_KEPT_MAX = 100
"""Told one by one; all of them are counted. A dead row of memory has thousands of the same kind."""
SAMPLES_KEPT_MAX = 240
"""Of a soak: one each 7.5 s of half an hour, some 20 kB of a signed report."""

MEMORY_MOVING_INVERSIONS = "memory.moving_inversions"
MEMORY_ADDRESS = "memory.address"
MEMORY_RANDOM = "memory.random"
MEMORY_CHECKERBOARD = "memory.checkerboard"
MEMORY_BIT_FADE = "memory.bit_fade"
MEMORY_BLOCK_MOVE = "memory.block_move"
MEMORY_SHARE = "memory.tested_share"
MEMORY_SPEED = "memory.kernel_share"
COMPUTE_FP32 = "compute.fp32"
COMPUTE_FP16 = "compute.fp16"
COMPUTE_FP64 = "compute.fp64"
COMPUTE_STABLE = "compute.stable"
FP32 = "throughput.fp32"
FP16 = "throughput.fp16"
FP64 = "throughput.fp64"
COPY = "throughput.copy"
TO_DEVICE = "throughput.to_device"
FROM_DEVICE = "throughput.from_device"
TENSOR_BF16 = "throughput.tensor_bf16"
TENSOR_FP16 = "throughput.tensor_fp16"
SOAK_SECONDS = "soak.seconds"
SOAK_TEMPERATURE = "soak.temperature"
SOAK_CLOCK_DRIFT = "soak.clock_drift"
SOAK_POWER = "soak.power_ratio"
SOAK_THROUGHPUT_DRIFT = "soak.throughput_drift"
SOAK_SLOWDOWN = "soak.slowdown"
SOAK_ERRORS = "soak.uncorrectable"
ECC_VOLATILE_CORRECTED = "ecc.volatile_corrected"
ECC_VOLATILE_UNCORRECTED = "ecc.volatile_uncorrected"
ECC_AGGREGATE_CORRECTED = "ecc.aggregate_corrected"
ECC_AGGREGATE_UNCORRECTED = "ecc.aggregate_uncorrected"
ECC_SRAM_THRESHOLD = "ecc.sram_threshold"
RETIRED_PAGES = "ecc.retired_pages"
RETIREMENT_PENDING = "ecc.retirement_pending"
REMAPPED_ROWS = "ecc.remapped_rows"
REMAP_PENDING = "ecc.remap_pending"
REMAP_FAILED = "ecc.remap_failed"
REMAP_EXHAUSTED_BANKS = "ecc.remap_exhausted_banks"
XID = "driver.xid"
THROTTLE = "driver.throttle"
PROCESSES = "driver.processes"
ENERGY_COUNTER = "driver.energy_counter"
PCIE_GENERATION = "pcie.generation"
PCIE_WIDTH = "pcie.width"
PCIE_REPLAYS = "pcie.replays"
NVLINK_INACTIVE = "nvlink.inactive"
NVLINK_ERRORS = "nvlink.errors"
IDENTITY_MODEL = "identity.model"
IDENTITY_PCI = "identity.pci"
IDENTITY_MEMORY = "identity.memory"
IDENTITY_UNITS = "identity.compute_units"
IDENTITY_BANDWIDTH = "identity.bandwidth"
IDENTITY_FLOPS = "identity.flops"
IDENTITY_UUID = "identity.uuid"
IDENTITY_SEVERAL = "identity.several"
PROOF_RATE = "throughput.proof"
"""Steps of `perak.domain.hardware.challenge` a second, alone; 1e9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckKind:
    """A check that there is. `quick`: whether `--quick` runs it; `soak`: only a soak does."""

    name: str
    what: str
    unit: str
    quick: bool = True
    soak: bool = False


CHECKS = (
    CheckKind(name=MEMORY_MOVING_INVERSIONS, what="moving inversions", unit="mismatches"),
    CheckKind(name=MEMORY_ADDRESS, what="each word holds its own address", unit="mismatches"),
    CheckKind(name=MEMORY_RANDOM, what="random words of a seed", unit="mismatches"),
    CheckKind(name=MEMORY_CHECKERBOARD, what="checkerboard and its inverse", unit="mismatches"),
    CheckKind(name=MEMORY_BIT_FADE, what="written, left alone, read", unit="mismatches", quick=False),
    CheckKind(name=MEMORY_BLOCK_MOVE, what="blocks moved about by the device", unit="mismatches"),
    CheckKind(name=MEMORY_SHARE, what="share of the free memory that was tested", unit="share"),
    CheckKind(name=MEMORY_SPEED, what="memory kernels against the device's own copy", unit="share"),
    CheckKind(name=COMPUTE_FP32, what="FP32 products against a reference", unit="relative error"),
    CheckKind(name=COMPUTE_FP16, what="FP16 products against a reference", unit="relative error"),
    CheckKind(name=COMPUTE_FP64, what="FP64 products against a reference", unit="relative error"),
    CheckKind(name=COMPUTE_STABLE, what="products that differ from the first, bit by bit", unit="results"),
    CheckKind(name=FP32, what="FP32 fused multiply-add", unit="TFLOP/s"),
    CheckKind(name=FP16, what="FP16 fused multiply-add", unit="TFLOP/s"),
    CheckKind(name=FP64, what="FP64 fused multiply-add", unit="TFLOP/s"),
    CheckKind(name=COPY, what="copy in device memory, read and write counted", unit="GB/s"),
    CheckKind(name=TO_DEVICE, what="host to device", unit="GB/s"),
    CheckKind(name=FROM_DEVICE, what="device to host", unit="GB/s"),
    CheckKind(name=PROOF_RATE, what="steps of a challenge, alone", unit="Gstep/s"),
    CheckKind(name=TENSOR_BF16, what="BF16 matrix product by torch or CuPy", unit="TFLOP/s", quick=False),
    CheckKind(name=TENSOR_FP16, what="FP16 matrix product by torch or CuPy", unit="TFLOP/s", quick=False),
    CheckKind(name=SOAK_SECONDS, what="time under load", unit="s", quick=False, soak=True),
    CheckKind(name=SOAK_TEMPERATURE, what="core at the end of the soak", unit="C", quick=False, soak=True),
    CheckKind(name=SOAK_CLOCK_DRIFT, what="clock lost", unit="MHz", quick=False, soak=True),
    CheckKind(name=SOAK_POWER, what="sustained power to its limit", unit="share", quick=False, soak=True),
    CheckKind(name=SOAK_THROUGHPUT_DRIFT, what="throughput lost", unit="share", quick=False, soak=True),
    CheckKind(name=SOAK_SLOWDOWN, what="samples slowed by hardware", unit="share", quick=False, soak=True),
    CheckKind(name=SOAK_ERRORS, what="new uncorrectable errors", unit="errors", quick=False, soak=True),
    CheckKind(name=ECC_VOLATILE_CORRECTED, what="corrected since the driver came up", unit="errors"),
    CheckKind(name=ECC_VOLATILE_UNCORRECTED, what="uncorrectable since the driver came up", unit="errors"),
    CheckKind(name=ECC_AGGREGATE_CORRECTED, what="corrected in the card's life", unit="errors"),
    CheckKind(name=ECC_AGGREGATE_UNCORRECTED, what="uncorrectable in the card's life", unit="errors"),
    CheckKind(name=ECC_SRAM_THRESHOLD, what="the driver's own SRAM threshold", unit="exceeded"),
    CheckKind(name=RETIRED_PAGES, what="pages taken out of use", unit="pages"),
    CheckKind(name=RETIREMENT_PENDING, what="a page waits to be retired", unit="pending"),
    CheckKind(name=REMAPPED_ROWS, what="rows replaced by spare ones", unit="rows"),
    CheckKind(name=REMAP_PENDING, what="a row waits for a reset to be replaced", unit="pending"),
    CheckKind(name=REMAP_FAILED, what="a row could not be replaced", unit="failed"),
    CheckKind(name=REMAP_EXHAUSTED_BANKS, what="banks without spare rows", unit="banks"),
    CheckKind(name=XID, what="critical errors that the driver told during the inspection", unit="events"),
    CheckKind(name=THROTTLE, what="hardware slowdown, thermal or by power brake", unit="active"),
    CheckKind(name=PROCESSES, what="others that compute on it", unit="processes"),
    CheckKind(name=ENERGY_COUNTER, what="its energy counter counts", unit="J"),
    CheckKind(name=PCIE_GENERATION, what="PCIe generation, read under load", unit="generation"),
    CheckKind(name=PCIE_WIDTH, what="PCIe lanes, read under load", unit="lanes"),
    CheckKind(name=PCIE_REPLAYS, what="PCIe replays during the inspection", unit="replays"),
    CheckKind(name=NVLINK_INACTIVE, what="NVLink links that are down", unit="links"),
    CheckKind(name=NVLINK_ERRORS, what="NVLink errors counted by the driver", unit="errors"),
    CheckKind(name=IDENTITY_MODEL, what="its name is one that the data sheets know", unit="known"),
    CheckKind(name=IDENTITY_PCI, what="bus, driver and OpenCL tell of one device", unit="differing"),
    CheckKind(name=IDENTITY_MEMORY, what="memory that held data, to the data sheet's", unit="share"),
    CheckKind(name=IDENTITY_UNITS, what="compute units to the data sheet's", unit="share"),
    CheckKind(name=IDENTITY_BANDWIDTH, what="copy bandwidth to the data sheet's", unit="share"),
    CheckKind(name=IDENTITY_FLOPS, what="FP32 to the data sheet's", unit="share"),
    CheckKind(name=IDENTITY_UUID, what="its UUID is its own and stays", unit="changes"),
    CheckKind(name=IDENTITY_SEVERAL, what="devices that answer at once are several", unit="slowdown"),
)  # fmt: skip
"""Every check, in the order of a report; an inspection has one result for each."""
BY_NAME = {each.name: each for each in CHECKS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One result. `value` is None where nothing was measured; `threshold` where nothing holds it.

    `reason`: why it failed or did not run; else what there is to know. `source`: what was asked (``OpenCL``,
    ``NVML``, ``PCI``), and who says where the threshold lies. `spread`: half the range of the middle half of
    several timed runs, relative to the median.
    """

    name: str
    status: Status
    reason: str = ""
    value: float | None = None
    unit: str = ""
    threshold: float | None = None
    source: str = ""
    spread: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A word that was read as another than was written. `mask`: the bits that differ."""

    check: str
    buffer: int
    address: int
    """Byte offset in the buffer."""
    expected: int
    read: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The device at one moment of a soak; None: it can't be read."""

    at_seconds: float
    celsius: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    watts: float | None = None
    throttle: tuple[str, ...] = ()
    tflops: float | None = None
    """FP32, of the load itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """Who a device says it is, each value by its source; None: that source does not say."""

    uuid: str
    """The vendor's; where there is none, made of what OpenCL and the bus say: ``CL-<hex>``."""
    model: str
    """What it claims to be: the driver's name for it, else OpenCL's."""
    kind: str
    """nvidia, amd, intel or cpu."""
    index: int
    serial: str | None = None
    vbios: str | None = None
    driver: str | None = None
    pci_bus: str | None = None
    """As the kernel writes it, ``0000:3b:00.0``."""
    pci_ids: str | None = None
    """``vendor:device:subsystem vendor:subsystem`` in hex, from the bus itself."""
    nvml_name: str | None = None
    nvml_memory_bytes: int | None = None
    nvml_pci_ids: str | None = None
    nvml_cores: int | None = None
    compute_capability: str | None = None
    power_limit_watts: float | None = None
    power_limit_default_watts: float | None = None
    ecc_enabled: bool | None = None
    opencl_name: str | None = None
    opencl_vendor: str | None = None
    opencl_platforms: tuple[str, ...] = ()
    """Every platform that shows this device; more than one is still one device."""
    opencl_version: str | None = None
    opencl_pci_bus: str | None = None
    opencl_memory_bytes: int | None = None
    opencl_compute_units: int | None = None
    opencl_clock_mhz: int | None = None
    pcie_generation_card: int | None = None
    pcie_width_card: int | None = None
    pcie_generation_slot: int | None = None
    """What the machine's slot allows: its limit is not the card's."""
    pcie_width_slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInspection:
    """One inspection of one device. `software`: the program and the digest of its kernels."""

    identity: DeviceIdentity
    kind: Kind
    trigger: Trigger
    started_at: int
    ended_at: int
    checks: tuple[Check, ...]
    mismatches: tuple[Mismatch, ...] = ()
    """The first MISMATCHES_KEPT_MAX; the checks count all."""
    samples: tuple[Sample, ...] = ()
    xids: tuple[int, ...] = ()
    """Of XID events during the inspection, in order."""
    software: str = ""
    version: int = VERSION

    @property
    def coverage(self) -> float:
        """Share of the checks there are that ran, 0 to 1; those that only a soak has count with a soak."""
        asked = {each.name for each in CHECKS if self.kind == "soak" or not each.soak}
        ran = {each.name for each in self.checks if each.status != "not_run" and each.name in asked}
        return len(ran) / len(asked)

    def check(self, name: str) -> Check:
        """The result of the check of that name; one that is absent did not run."""
        found = next((each for each in self.checks if each.name == name), None)
        return found or Check(name=name, status="not_run", reason="the inspection has no such check")

    def value(self, name: str) -> float | None:
        """What was measured; None where it did not run."""
        found = self.check(name)
        return found.value if found.status != "not_run" else None

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(each for each in self.checks if each.status == "failed")


def complete(checks: Iterable[Check], *, why: str = "it was not reached") -> tuple[Check, ...]:
    """One result for every check there is, in their order; what is absent did not run, because of `why`."""
    found = {each.name: each for each in checks}
    return tuple(
        found.get(kind.name) or Check(name=kind.name, status="not_run", reason=why, unit=kind.unit)
        for kind in CHECKS
    )


def canonical(inspection: DeviceInspection) -> bytes:
    """The bytes that the digest covers: JSON with sorted keys, 3.0 written as 3, as either may be read."""
    values = _plain(asdict(inspection))
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(inspection: DeviceInspection) -> str:
    """``sha256:<hex>`` of the inspection: the evidence that grades and passports name."""
    return f"sha256:{hashlib.sha256(canonical(inspection)).hexdigest()}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
