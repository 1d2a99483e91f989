"""What NVIDIA's driver says of a device: identity, errors, links, and how it is while it works.

A reading that a card or driver does not have is missing, never zero: each check says so. A card that fell
off the bus answers NVML_ERROR_GPU_IS_LOST to everything, which is told apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from perak.agent.probe.driver import Driver, bus_id
from perak.domain.facts.grades import XIDS_MINOR
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check, Sample

_T = TypeVar("_T")

RETIRED_PAGES_MOST = 10
"""NVIDIA, Dynamic Page Retirement: it counts to 64 a card; a reject begins far earlier."""
EXHAUSTED_MOST = 0
XIDS_MAX = 100
"""A card in trouble tells the same one each second."""
THROTTLE_NAMES = {
    0x01: "idle", 0x02: "application clocks", 0x04: "power cap", 0x08: "hardware slowdown",
    0x10: "sync boost", 0x20: "thermal", 0x40: "hardware thermal", 0x80: "power brake", 0x100: "display",
}  # fmt: skip
"""Bits of nvmlClocksEventReasons, for people."""
HARDWARE_SLOWDOWN = 0x08 | 0x40 | 0x80


class CardLost(RuntimeError):
    """The card does not answer its driver any more."""


@dataclass(slots=True)
class Card:
    """One card, by its handle. `uuid` and `bus` as at the time it was found."""

    nvml: Any
    handle: Any
    index: int
    uuid: str
    bus: str | None
    generations: list[int] = field(default_factory=list)
    """PCIe generations and widths that were seen under load, and reasons why clocks were held back."""
    widths: list[int] = field(default_factory=list)
    throttle: int = 0
    looked: bool = False
    _events: Any = None
    _replays: int | None = None
    _energy: int | None = None
    _uncorrected: int | None = None
    _others: int | None = None
    """Processes that computed on it before we did: within a container ours has another number there."""

    def begin(self) -> None:
        """Note what is counted from here on, and ask to be told of Xid events."""
        self._replays = self.read("nvmlDeviceGetPcieReplayCounter")
        self._energy = self.read("nvmlDeviceGetTotalEnergyConsumption")
        self._uncorrected = self._ecc(uncorrected=True, aggregate=False)
        running = self.read("nvmlDeviceGetComputeRunningProcesses")
        self._others = None if running is None else len(running)
        with contextlib.suppress(self.nvml.NVMLError):
            events = self.nvml.nvmlEventSetCreate()
            self.nvml.nvmlDeviceRegisterEvents(self.handle, self.nvml.nvmlEventTypeXidCriticalError, events)
            self._events = events

    def read(self, name: str, *arguments: Any) -> Any:
        """One reading; None where the card or the driver has none. Raises CardLost."""
        try:
            return getattr(self.nvml, name)(self.handle, *arguments)
        except self.nvml.NVMLError as error:
            if error.value in (self.nvml.NVML_ERROR_GPU_IS_LOST, self.nvml.NVML_ERROR_RESET_REQUIRED):
                raise CardLost(f"the driver says of {self.uuid}: {error}") from None
            return None
        except AttributeError:
            return None

    def sample(self, at_seconds: float, tflops: float | None = None) -> Sample:
        """The card now; what is seen of its link and clocks is remembered too."""
        nvml = self.nvml
        self._add(self.generations, self.read("nvmlDeviceGetCurrPcieLinkGeneration"))
        self._add(self.widths, self.read("nvmlDeviceGetCurrPcieLinkWidth"))
        reasons = self.read("nvmlDeviceGetCurrentClocksThrottleReasons")
        if reasons is not None:
            self.throttle |= reasons
            self.looked = True
        milliwatts = self.read("nvmlDeviceGetPowerUsage")
        return Sample(
            at_seconds=at_seconds,
            celsius=self.read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            clock_mhz=self.read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self.read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            watts=None if milliwatts is None else milliwatts / 1000,
            throttle=tuple(name for bit, name in THROTTLE_NAMES.items() if reasons and reasons & bit),
            tflops=tflops,
        )

    @property
    def free_bytes(self) -> int | None:
        memory = self.read("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.free)

    @property
    def power_limit_watts(self) -> float | None:
        milliwatts = self.read("nvmlDeviceGetPowerManagementLimit")
        return None if milliwatts is None else milliwatts / 1000

    def new_uncorrected(self) -> int | None:
        """Uncorrectable errors since `begin`."""
        now = self._ecc(uncorrected=True, aggregate=False)
        return None if now is None or self._uncorrected is None else max(0, now - self._uncorrected)

    def xids(self) -> tuple[int, ...] | None:
        """Of the Xid events since `begin`; None where the driver tells of none."""
        if self._events is None:
            return None
        found: list[int] = []
        while len(found) < XIDS_MAX:
            try:
                event = self.nvml.nvmlEventSetWait_v2(self._events, 0)
            except self.nvml.NVMLError:  # No more have come: a timeout.
                break
            found.append(int(event.eventData))
        return tuple(found)

    def identity(self) -> dict[str, Any]:
        """Fields of a DeviceIdentity that this driver knows."""
        memory = self.read("nvmlDeviceGetMemoryInfo")
        capability = self.read("nvmlDeviceGetCudaComputeCapability")
        pci = self.read("nvmlDeviceGetPciInfo")
        mode = self.read("nvmlDeviceGetEccMode")
        limit = self.read("nvmlDeviceGetPowerManagementDefaultLimit")
        return {
            "serial": _text(self.read("nvmlDeviceGetSerial")),
            "vbios": _text(self.read("nvmlDeviceGetVbiosVersion")),
            "driver": _text(_quiet(self.nvml, self.nvml.nvmlSystemGetDriverVersion)),
            "pci_bus": self.bus,
            "nvml_name": _text(self.read("nvmlDeviceGetName")),
            "nvml_memory_bytes": None if memory is None else int(memory.total),
            "nvml_pci_ids": _pci_ids(pci),
            "nvml_cores": self.read("nvmlDeviceGetNumGpuCores"),
            "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
            "power_limit_watts": self.power_limit_watts,
            "power_limit_default_watts": None if limit is None else limit / 1000,
            "ecc_enabled": None if mode is None else bool(mode[0]),
            "pcie_generation_card": self.read("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
            "pcie_width_card": self.read("nvmlDeviceGetMaxPcieLinkWidth"),
            "pcie_generation_slot": self.read("nvmlDeviceGetMaxPcieLinkGeneration"),
        }

    # Checks

    def checks(self) -> Iterator[Check]:
        """What the driver says at the end of an inspection."""
        yield from self._memory_errors()
        yield from self._spare_rows()
        yield from self._driver_checks()
        yield from self._nvlink()

    def _memory_errors(self) -> Iterator[Check]:
        mode = self.read("nvmlDeviceGetEccMode")
        why = "its memory has no error counters" if mode is None else "ECC is switched off"
        for name, uncorrected, aggregate in (
            (i.ECC_VOLATILE_CORRECTED, False, False),
            (i.ECC_VOLATILE_UNCORRECTED, True, False),
            (i.ECC_AGGREGATE_CORRECTED, False, True),
            (i.ECC_AGGREGATE_UNCORRECTED, True, True),
        ):
            count = self._ecc(uncorrected=uncorrected, aggregate=aggregate)
            most = 0 if name == i.ECC_VOLATILE_UNCORRECTED else None
            yield _counted(name, count, most=most, why=why)
        yield _counted(i.ECC_SRAM_THRESHOLD, self._sram_exceeded(), most=0, why="no such threshold here")

    def _spare_rows(self) -> Iterator[Check]:
        pages = [
            self.read("nvmlDeviceGetRetiredPages", cause)
            for cause in (
                self.nvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
                self.nvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
            )
        ]
        retired = None if None in pages else sum(len(each) for each in pages)
        why = "this card retires no pages: newer ones replace rows"
        yield _counted(i.RETIRED_PAGES, retired, most=RETIRED_PAGES_MOST, why=why)
        yield _counted(
            i.RETIREMENT_PENDING, self.read("nvmlDeviceGetRetiredPagesPendingStatus"), most=0, why=why
        )
        rows = self.read("nvmlDeviceGetRemappedRows")
        why = "this card replaces no rows: Ampere's data centre cards were the first"
        yield _counted(i.REMAPPED_ROWS, None if rows is None else rows[0] + rows[1], most=None, why=why)
        yield _counted(i.REMAP_PENDING, None if rows is None else rows[2], most=0, why=why)
        yield _counted(i.REMAP_FAILED, None if rows is None else rows[3], most=0, why=why)
        banks = self.read("nvmlDeviceGetRowRemapperHistogram")
        exhausted = None if banks is None else int(getattr(banks, "none"))  # noqa: B009 - a word of Python's
        told = "" if banks is None else f"spare rows: {banks.max} banks all, {banks.high} many, "
        told += "" if banks is None else f"{banks.partial} some, {banks.low} few, {exhausted} none"
        yield _counted(i.REMAP_EXHAUSTED_BANKS, exhausted, most=EXHAUSTED_MOST, why=told or why)

    def _driver_checks(self) -> Iterator[Check]:
        throttled = float(bool(self.throttle & HARDWARE_SLOWDOWN)) if self.looked else None
        names = [name for bit, name in THROTTLE_NAMES.items() if self.throttle & bit]
        yield _counted(i.THROTTLE, throttled, most=0, why=", ".join(names) or "nothing tells")
        yield _counted(i.PROCESSES, self._others, most=None, why="the driver tells no processes")
        yield self._energy_check()
        replays = self.read("nvmlDeviceGetPcieReplayCounter")
        since = None if replays is None or self._replays is None else max(0, replays - self._replays)
        yield _counted(i.PCIE_REPLAYS, since, most=None, why="the driver counts none")

    def _energy_check(self) -> Check:
        now = self.read("nvmlDeviceGetTotalEnergyConsumption")
        if now is None or self._energy is None:
            return _counted(
                i.ENERGY_COUNTER, None, most=None, why="cards before Volta have no energy counter"
            )
        joules = (now - self._energy) / 1000
        return Check(
            name=i.ENERGY_COUNTER,
            status="passed" if joules > 0 else "failed",
            reason="" if joules > 0 else "it stood still during the inspection",
            value=joules,
            unit="J",
            source="NVML",
        )

    def _nvlink(self) -> Iterator[Check]:
        states: list[int] = []
        errors = 0
        for link in range(self.nvml.NVML_NVLINK_MAX_LINKS):
            state = self.read("nvmlDeviceGetNvLinkState", link)
            if state is None:
                continue
            states.append(state)
            for counter in range(self.nvml.NVML_NVLINK_ERROR_COUNT):
                errors += self.read("nvmlDeviceGetNvLinkErrorCounter", link, counter) or 0
        why = "the card has no NVLink"
        inactive = sum(1 for each in states if not each) if states else None
        if states and not any(states):
            why, inactive = f"none of its {len(states)} links has a card at the other end", None
        yield _counted(i.NVLINK_INACTIVE, inactive, most=0, why=why)
        yield _counted(i.NVLINK_ERRORS, errors if any(states) else None, most=0, why=why)

    def _ecc(self, *, uncorrected: bool, aggregate: bool) -> int | None:
        nvml = self.nvml
        kind = (
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED if uncorrected else nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        )
        counter = nvml.NVML_AGGREGATE_ECC if aggregate else nvml.NVML_VOLATILE_ECC
        count = self.read("nvmlDeviceGetTotalEccErrors", kind, counter)
        return None if count is None else int(count)

    def _sram_exceeded(self) -> int | None:
        try:
            status = self.nvml.c_nvmlEccSramErrorStatus_v1_t()
        except AttributeError:  # an older pynvml
            return None
        answered = self.read("nvmlDeviceGetSramEccErrorStatus", self.nvml.byref(status))
        return None if answered is None else int(status.bThresholdExceeded)

    @staticmethod
    def _add(seen: list[int], value: int | None) -> None:
        if value is not None and value not in seen:
            seen.append(value)


def cards() -> tuple[list[Card], str]:
    """The cards of this machine's NVIDIA driver; none, and why."""
    driver = Driver.find()
    if driver is None:
        return [], "no NVIDIA driver is installed"
    try:
        import pynvml

        driver.load()
        pynvml.nvmlInit()
    except Exception as error:  # whatever a half-installed driver does is a reason, not an end
        return [], f"the NVIDIA driver does not answer: {error}"
    found = []
    for index in range(_quiet(pynvml, pynvml.nvmlDeviceGetCount) or 0):
        handle = _quiet(pynvml, lambda index=index: pynvml.nvmlDeviceGetHandleByIndex(index))  # type: ignore[misc]
        uuid = handle and _text(_quiet(pynvml, lambda handle=handle: pynvml.nvmlDeviceGetUUID(handle)))  # type: ignore[misc]
        if not uuid:
            continue
        pci = _quiet(pynvml, lambda handle=handle: pynvml.nvmlDeviceGetPciInfo(handle))  # type: ignore[misc]
        bus = None if pci is None else bus_id(_text(pci.busId) or "")
        found.append(Card(nvml=pynvml, handle=handle, index=index, uuid=uuid, bus=bus or None))
    return found, "" if found else "the NVIDIA driver shows no card"


def xid_check(xids: tuple[int, ...] | None) -> Check:
    """Xid events but those that a program makes by itself."""
    if xids is None:
        return _counted(i.XID, None, most=0, why="the driver tells of no events")
    grave = [each for each in xids if each not in XIDS_MINOR]
    told = f"Xid {', '.join(map(str, xids[:20]))}" if xids else ""
    return _counted(i.XID, len(grave), most=0, why=told)


def _counted(name: str, count: float | None, *, most: float | None, why: str) -> Check:
    """A count, held to `most`; without one the check did not run, and `why` says so."""
    if count is None:
        return Check(name=name, status="not_run", reason=why, unit=i.BY_NAME[name].unit)
    is_bad = most is not None and count > most
    return Check(
        name=name,
        status="failed" if is_bad else "passed",
        reason=why if name in _TOLD else "",
        value=float(count),
        unit=i.BY_NAME[name].unit,
        threshold=most,
        source="NVML",
    )


_TOLD = frozenset({i.REMAP_EXHAUSTED_BANKS, i.THROTTLE, i.XID})
"""Whose `why` says more than why it is missing."""


def _pci_ids(pci: Any) -> str | None:
    if pci is None or not pci.pciDeviceId:
        return None
    device, sub = int(pci.pciDeviceId), int(pci.pciSubSystemId)
    return f"{device & 0xFFFF:04x}:{device >> 16:04x}:{sub & 0xFFFF:04x}:{sub >> 16:04x}"


def _quiet(nvml: Any, read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except nvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
