"""Is a device what it is said to be? What was measured, against the data sheet of the model it claims.

The driver's word is one witness among four: the bus (PCI ids), OpenCL, what memory held data, and how fast it
was. A counterfeit is a small card that tells a big one's name, so every share has a least; and a mining card
under a consumer card's name is faster or slower in one of them, so some have a most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check, DeviceIdentity
from perak.domain.hardware.specs import GpuSpec, find_gpu

MEMORY_LEAST = 0.86
"""ECC on GDDR takes 1/16 of it, and driver, screen and our own context some hundred MiB."""
BANDWIDTH_LEAST, BANDWIDTH_MOST = 0.55, 1.08
"""Copies reach 70 to 93% of the data sheet's peak on healthy cards (BabelStream's published results); clocks
that were raised by their owner add a little."""
FLOPS_LEAST, FLOPS_MOST = 0.50, 1.25
"""Of the peak at boost clock: power limits take up to a third, and owners' cards boost above their sheet. The
mining card CMP 170HX does a thirty-second of what its chip could (niconiconi, "CMP 170HX", 2023)."""
SLOWDOWN_MOST = 1.5
"""Devices at work at once, to each alone; two that are one take twice as long."""

CORES_A_UNIT = {
    "3": 192, "5": 128, "6.0": 64, "6": 128, "7": 64, "8.0": 64, "8": 128, "9": 128, "10": 128, "12": 128,
}  # fmt: skip
"""FP32 cores of a streaming multiprocessor by compute capability: CUDA C++ Programming Guide, "Arithmetic
Instructions"."""
VENDORS = {"nvidia": "10de", "amd": "1002", "intel": "8086"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the inspection itself saw; None: it did not get to see it."""

    memory_bytes: int | None = None
    """That held data, all at once."""
    copy_gbs: float | None = None
    fp32_tflops: float | None = None
    slowdown: float | None = None
    """With all devices at work at once, to alone; None: there is one, or it was not tried."""
    slowdown_reason: str = ""


def judge_identity(
    identity: DeviceIdentity, measured: Measured, *, earlier_uuids: Iterable[str] = ()
) -> tuple[Check, ...]:
    """One check for each way to lie; `earlier_uuids`: what the device in this place was called before."""
    if identity.kind == "cpu":
        return tuple(
            Check(name=name, status="not_run", reason="a processor has no data sheet here")
            for name in sorted(i.BY_NAME)
            if name.startswith("identity.")
        )
    spec = find_gpu(identity.model, memory_bytes=identity.nvml_memory_bytes or identity.opencl_memory_bytes)
    return (
        _model(identity, spec),
        _pci(identity, spec),
        _share(
            i.IDENTITY_MEMORY,
            measured.memory_bytes,
            spec.memory_gib * 2**30 if spec else None,
            least=MEMORY_LEAST,
            what="memory that held data",
        ),
        _units(identity),
        _share(
            i.IDENTITY_BANDWIDTH,
            measured.copy_gbs,
            spec.bandwidth_gbs if spec else None,
            least=BANDWIDTH_LEAST,
            most=BANDWIDTH_MOST,
            what="GB/s",
        ),
        _share(
            i.IDENTITY_FLOPS,
            measured.fp32_tflops,
            spec.fp32_tflops if spec else None,
            least=FLOPS_LEAST,
            most=FLOPS_MOST,
            what="TFLOP/s",
        ),
        _uuid(identity, tuple(earlier_uuids)),
        _several(measured),
    )


def mismatch(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The identity checks that failed: the device is not what it is said to be."""
    return tuple(each for each in checks if each.name.startswith("identity.") and each.status == "failed")


def _model(identity: DeviceIdentity, spec: GpuSpec | None) -> Check:
    name = i.IDENTITY_MODEL
    if spec is None:
        return _absent(name, f"no data sheet of {identity.model!r} is known here")
    other = identity.opencl_name and find_gpu(
        identity.opencl_name, memory_bytes=identity.nvml_memory_bytes or identity.opencl_memory_bytes
    )
    if other and other.model != spec.model:
        why = f"the driver says {identity.model!r}, OpenCL says {identity.opencl_name!r}"
        return Check(name=name, status="failed", reason=why, value=0, unit="known", source="NVML, OpenCL")
    told, sheet = identity.compute_capability, spec.compute_capability
    if told and sheet and told != sheet:
        why = f"a {spec.model} has compute capability {sheet}, this one {told}"
        return Check(name=name, status="failed", reason=why, value=0, unit="known", source=spec.source)
    return Check(
        name=name, status="passed", reason=spec.variant, value=1, unit="known", source=spec.source[:200]
    )


def _pci(identity: DeviceIdentity, spec: GpuSpec | None) -> Check:
    """Bus, driver and OpenCL must name one device; and the bus one that is sold under this name."""
    name, source = i.IDENTITY_PCI, "PCI, NVML, OpenCL"
    if identity.pci_ids is None and identity.nvml_pci_ids is None:
        return _absent(name, "neither the bus nor the driver tells its PCI ids")
    found = list(_pci_differences(identity, spec))
    return Check(
        name=name,
        status="failed" if found else "passed",
        reason="; ".join(found),
        value=len(found),
        unit="differing",
        threshold=0,
        source=source,
    )


def _pci_differences(identity: DeviceIdentity, spec: GpuSpec | None) -> Iterator[str]:
    bus, driver = identity.pci_ids, identity.nvml_pci_ids
    if bus and driver and bus != driver:
        yield f"the bus says {bus}, the driver {driver}"
    ids = (bus or driver or "").split(":")
    vendor = VENDORS.get(identity.kind)
    if vendor and ids[0] != vendor:
        yield f"the vendor {ids[0]} does not make {identity.kind} devices"
    pair = ":".join(ids[:2])
    if spec and spec.pci_ids and pair not in spec.pci_ids:
        yield f"{pair} is not sold as {spec.model} ({', '.join(spec.pci_ids)})"
    if identity.opencl_pci_bus and identity.pci_bus and identity.opencl_pci_bus != identity.pci_bus:
        yield f"OpenCL has it at {identity.opencl_pci_bus}, the driver at {identity.pci_bus}"


def _units(identity: DeviceIdentity) -> Check:
    """OpenCL's compute units against the cores that the driver counts."""
    name, capability = i.IDENTITY_UNITS, identity.compute_capability
    if identity.opencl_compute_units is None:
        return _absent(name, "no OpenCL platform shows this device")
    if identity.nvml_cores is None or capability is None:
        return _absent(name, "the driver does not tell its cores")
    a_unit = CORES_A_UNIT.get(capability) or CORES_A_UNIT.get(capability.split(".")[0])
    if a_unit is None:
        return _absent(name, f"cores of a unit of compute capability {capability} are not known here")
    share = identity.opencl_compute_units * a_unit / identity.nvml_cores
    return Check(
        name=name,
        status="passed" if share == 1 else "failed",
        reason=f"{identity.opencl_compute_units} units of {a_unit}, the driver's {identity.nvml_cores} cores",
        value=share,
        unit="share",
        threshold=1,
        source="OpenCL, NVML",
    )


def _share(
    name: str, found: float | None, sheet: float | None, *, least: float, most: float | None = None, what: str
) -> Check:
    if found is None:
        return _absent(name, "it was not measured")
    if sheet is None:
        return _absent(name, "there is no figure of a data sheet to compare with")
    share = found / sheet
    is_off = share < least or (most is not None and share > most)
    if what == "memory that held data":
        told = f"{found / 2**30:.1f} of {sheet / 2**30:.0f} GiB held data"
    else:
        told = f"{found:.4g} of {sheet:.4g} {what}"
    return Check(
        name=name,
        status="failed" if is_off else "passed",
        reason=told + (f", more than {most:g} times as much" if most and share > most else ""),
        value=share,
        unit="share",
        threshold=most if most and share > most else least,
        source="OpenCL; data sheet",
    )


def _uuid(identity: DeviceIdentity, earlier: tuple[str, ...]) -> Check:
    name = i.IDENTITY_UUID
    if identity.uuid.startswith("CL-"):
        return _absent(name, "the device has no UUID of its maker")
    others = sorted(set(earlier) - {identity.uuid})
    return Check(
        name=name,
        status="failed" if others else "passed",
        reason=f"the same device was {', '.join(others)[:300]} before" if others else "",
        value=len(others),
        unit="changes",
        threshold=0,
        source="NVML",
    )


def _several(measured: Measured) -> Check:
    name = i.IDENTITY_SEVERAL
    if measured.slowdown is None:
        return _absent(name, measured.slowdown_reason or "there is one device only")
    return Check(
        name=name,
        status="passed" if measured.slowdown <= SLOWDOWN_MOST else "failed",
        reason=measured.slowdown_reason,
        value=measured.slowdown,
        unit="slowdown",
        threshold=SLOWDOWN_MOST,
        source="OpenCL",
    )


def _absent(name: str, why: str) -> Check:
    return Check(name=name, status="not_run", reason=why, unit=i.BY_NAME[name].unit)
