"""NVIDIA devices, by NVML. No driver: none. A reading that fails is missing; the device isn't.

The library is loaded only where a driver is: it takes some 8 MiB.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from perak.agent.probe.driver import DeviceAccess, Driver, bus_id
from perak.domain.hardware.fault import LOST, UNCORRECTED
from perak.domain.hardware.heat import DEFAULT_SOURCE, GPU_HOT_CELSIUS_DEFAULT
from perak.domain.hardware.torch import driver_cuda_of
from perak.domain.offer import Device
from perak.domain.report import Faulted, Sensor

_T = TypeVar("_T")

XIDS_MAX = 100
"""Of one device at a time: a card that fails tells the same many times a second."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaDevice:
    """A device, the number of its node, /dev/nvidia<minor>, and its place on the PCI bus.

    None: the driver does not tell.
    """

    device: Device
    minor: int | None
    bus_id: str | None
    handle: Any


@dataclass(slots=True, kw_only=True)
class _Watched:
    """A device whose faults are listened for. `events` None: it tells none; `uncorrected`: errors so far."""

    uuid: str
    handle: Any
    events: Any
    uncorrected: int | None = None


class Nvidia:
    """The devices of this machine's NVIDIA driver, and their counters."""

    def __init__(self, nvml: Any, driver: Driver | None = None) -> None:
        """`nvml` is the module pynvml, initialised."""
        self._nvml = nvml
        self._driver = driver or Driver()
        self.devices = tuple(self._probe())
        self._watched: list[_Watched] = []
        self._asking = threading.Lock()

    @classmethod
    def open(cls) -> Nvidia | None:
        """None where there is no driver or it doesn't answer."""
        driver = Driver.find()
        if driver is None:
            return None
        try:
            import pynvml

            driver.load()
            pynvml.nvmlInit()
        except Exception as error:  # whatever a half-installed driver does, the CPU can still be offered
            log.warning("no NVIDIA devices: %s", error)
            return None
        driver.make_nodes()
        return cls(pynvml, driver)

    def reprobe(self) -> None:
        """Look again: a device may have fallen off the bus."""
        self.devices = tuple(self._probe())

    def energy_joules(self, uuid: str) -> float | None:
        """The device's energy counter since the driver was loaded; None before Volta."""
        found = self._find(uuid)
        if found is None:
            return None
        millijoules = self._read(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(found.handle))
        return None if millijoules is None else millijoules / 1000

    def is_used(self, uuid: str) -> bool:
        """Whether any process computes on the device now, as far as the driver tells."""
        found = self._find(uuid)
        if found is None:
            return False
        return bool(self._read(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(found.handle)))

    def power_watts(self, uuid: str) -> float | None:
        """The device's power now; None where it can't be read."""
        found = self._find(uuid)
        if found is None:
            return None
        milliwatts = self._read(lambda: self._nvml.nvmlDeviceGetPowerUsage(found.handle))
        return None if milliwatts is None else milliwatts / 1000

    def temperatures(self) -> list[Sensor]:
        """What each card's own sensor says, with the temperature at which the card slows itself."""
        return [sensor for each in self.devices if (sensor := self._temperature(each)) is not None]

    def faults(self) -> list[Faulted]:
        """What the driver told of the devices since the last call, and that one does not answer it now.

        Of a device that was not there before, what it tells from now on; one that is no longer listed is
        still asked.
        """
        with self._asking:
            known = {each.uuid for each in self._watched}
            self._watched += [self._watch(each) for each in self.devices if each.device.uuid not in known]
            return [fault for each in self._watched for fault in self._faults_of(each)]

    def _watch(self, found: NvidiaDevice) -> _Watched:
        """A set of events for each device: only with its own does an event surely tell whose it is."""
        nvml = self._nvml
        events = self._read(nvml.nvmlEventSetCreate)
        if events is not None:
            try:
                nvml.nvmlDeviceRegisterEvents(found.handle, nvml.nvmlEventTypeXidCriticalError, events)
            except nvml.NVMLError:
                events = None  # Consumer cards on some systems tell no events.
        return _Watched(uuid=found.device.uuid, handle=found.handle, events=events)

    def _faults_of(self, each: _Watched) -> Iterator[Faulted]:
        nvml = self._nvml
        for _ in range(XIDS_MAX if each.events is not None else 0):
            event = self._read(lambda: nvml.nvmlEventSetWait_v2(each.events, 0))
            if event is None:
                break  # A timeout: no more have come.
            yield Faulted(device=each.uuid, xid=int(event.eventData))
        try:
            uncorrected = int(
                nvml.nvmlDeviceGetTotalEccErrors(
                    each.handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                )
            )
        except nvml.NVMLError as error:  # Most cards have no such counter; only one that is lost says so.
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                yield Faulted(device=each.uuid, kind=LOST)
            return
        if each.uncorrected is not None and uncorrected > each.uncorrected:
            yield Faulted(device=each.uuid, kind=UNCORRECTED)
        each.uncorrected = uncorrected

    def _temperature(self, found: NvidiaDevice) -> Sensor | None:
        nvml = self._nvml
        celsius = self._read(lambda: nvml.nvmlDeviceGetTemperature(found.handle, nvml.NVML_TEMPERATURE_GPU))
        if celsius is None:
            return None
        limit, source = GPU_HOT_CELSIUS_DEFAULT, DEFAULT_SOURCE
        for threshold, name in (
            (nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, "slowdown"),
            (nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, "shutdown"),
        ):
            told = self._threshold(found, threshold)
            if told:
                limit, source = float(told), f"NVML {name} threshold"
                break
        return Sensor(
            id=found.device.uuid,
            name=f"GPU {found.device.index} {found.device.model}",
            celsius=float(celsius),
            hot_celsius=limit,
            limit_source=source,
        )

    def _threshold(self, found: NvidiaDevice, threshold: int) -> int | None:
        return self._read(lambda: self._nvml.nvmlDeviceGetTemperatureThreshold(found.handle, threshold))

    def access(self, uuids: tuple[str, ...], *, in_image: bool = False) -> DeviceAccess:
        """What a run with these devices gets of the machine. Raises LookupError for an unknown one."""
        if not uuids:
            return DeviceAccess()
        minors, buses = [], []
        for uuid in uuids:
            found = self._find(uuid)
            if found is None or found.minor is None:
                raise LookupError(f"the device {uuid} is not there any more")
            minors.append(found.minor)
            if found.bus_id is not None:
                buses.append(found.bus_id)
        driver = self._driver.for_image() if in_image else self._driver
        return driver.access(minors=minors, uuids=uuids, bus_ids=buses)

    def capabilities(self, uuids: tuple[str, ...]) -> tuple[str, ...]:
        """The compute capabilities of these devices, as far as the driver tells."""
        found = (self._find(uuid) for uuid in uuids)
        return tuple(
            each.device.compute_capability for each in found if each and each.device.compute_capability
        )

    def driver_cuda(self) -> str | None:
        """The newest CUDA release that the driver knows, as far as it tells."""
        return next((driver_cuda_of(each.device.cuda, each.device.driver) for each in self.devices), None)

    def _find(self, uuid: str) -> NvidiaDevice | None:
        return next((each for each in self.devices if each.device.uuid == uuid), None)

    def _probe(self) -> list[NvidiaDevice]:
        count = self._read(self._nvml.nvmlDeviceGetCount) or 0
        driver = _text(self._read(self._nvml.nvmlSystemGetDriverVersion))
        number = self._read(self._nvml.nvmlSystemGetCudaDriverVersion)
        # NVML says 12040 for CUDA 12.4.
        cuda = f"{number // 1000}.{number % 1000 // 10}" if number else None
        found = (self._device(index, driver, cuda) for index in range(count))
        return [each for each in found if each is not None]

    def _device(self, index: int, driver: str | None, cuda: str | None) -> NvidiaDevice | None:
        """None without handle, UUID or memory: such a device can't be leased."""
        nvml = self._nvml
        handle = self._read(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        if handle is None:
            return None
        uuid = _text(self._read(lambda: nvml.nvmlDeviceGetUUID(handle)))
        memory_bytes = self._read(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
        if uuid is None or memory_bytes is None:
            log.warning("device %d answers neither by name nor by memory; it is not offered", index)
            return None
        capability = self._read(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
        limit = self._read(lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle))
        bus = _text(self._read(lambda: nvml.nvmlDeviceGetPciInfo(handle).busId))
        return NvidiaDevice(
            device=Device(
                index=index,
                kind="nvidia",
                model=_text(self._read(lambda: nvml.nvmlDeviceGetName(handle))) or "unknown NVIDIA device",
                uuid=uuid,
                memory_bytes=memory_bytes,
                compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
                driver=driver,
                cuda=cuda,
                power_limit_watts=None if limit is None else limit / 1000,
            ),
            minor=self._read(lambda: nvml.nvmlDeviceGetMinorNumber(handle)),
            bus_id=None if bus is None else bus_id(bus),
            handle=handle,
        )

    def _read(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except self._nvml.NVMLError:
            return None


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
