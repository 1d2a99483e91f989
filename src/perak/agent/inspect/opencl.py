"""Devices as OpenCL shows them, each once; and one of them at work."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyopencl as cl

_T = TypeVar("_T")

Words = npt.NDArray[np.uint32]

FOUND_MAX = 4096
"""Mismatches that one pass can tell one by one; all are counted."""
WORD_BYTES = 4
ROUNDS = 16
"""Vectors of one work-item: enough that what differs is looked at rarely, few enough for short launches."""
LOCAL_SIZE = 256
"""Work-items of a group on a GPU: a multiple of every warp and wavefront."""
LOCAL_SIZE_CPU = 16
"""On a processor: pocl translates a kernel anew for each size of groups, so there is one."""
SHIPPED = ("NVIDIA CUDA", "AMD Accelerated Parallel Processing", "Intel(R) OpenCL")
"""Platforms of the makers: where two show one device, theirs is the faster and the surer."""


class DeviceGone(RuntimeError):
    """The device does not answer any more, or not as a device does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One device, by however many platforms it is shown. `place`: its PCI address, else what it is called."""

    handle: Any
    place: str
    pci_bus: str | None
    name: str
    vendor: str
    version: str
    platforms: tuple[str, ...]
    is_cpu: bool
    memory_bytes: int
    buffer_bytes_max: int
    compute_units: int
    clock_mhz: int
    local_bytes: int
    compute_capability: str | None = None


def find() -> list[Shown]:
    """The devices of this machine; the same one through two platforms is one device."""
    found: dict[str, Shown] = {}
    for platform in _platforms():
        for number, device in enumerate(platform.get_devices()):
            each = _shown(platform, device, number)
            before = found.get(each.place)
            if before is None:
                found[each.place] = each
                continue
            better = each if _rank(each) < _rank(before) else before
            found[each.place] = replace(better, platforms=(*before.platforms, *each.platforms))
    return sorted(found.values(), key=lambda each: (each.is_cpu, each.place))


def every() -> list[Shown]:
    """Each device of each platform, as the platforms count them: for finding out who is who."""
    return [_shown(p, device, number) for p in _platforms() for number, device in enumerate(p.get_devices())]


def _platforms() -> list[Any]:
    try:
        return list(cl.get_platforms())
    except cl.Error:  # No platform at all is an error of the loader.
        return []


def _rank(each: Shown) -> tuple[bool, str]:
    return not each.platforms[0].startswith(SHIPPED), each.platforms[0]


def _shown(platform: Any, device: Any, number: int) -> Shown:
    is_cpu = bool(device.type & cl.device_type.CPU)
    bus = None if is_cpu else _pci_bus(device)
    name = str(device.name).strip("\0 ")
    return Shown(
        handle=device,
        place="cpu" if is_cpu else bus or f"{name}#{number}",
        pci_bus=bus,
        name=name,
        vendor=str(device.vendor).strip("\0 "),
        version=str(device.version).strip("\0 "),
        platforms=(str(platform.name).strip("\0 "),),
        is_cpu=is_cpu,
        memory_bytes=int(device.global_mem_size),
        buffer_bytes_max=int(device.max_mem_alloc_size),
        compute_units=int(device.max_compute_units),
        clock_mhz=int(device.max_clock_frequency),
        local_bytes=int(device.local_mem_size),
        compute_capability=_capability(device),
    )


def _pci_bus(device: Any) -> str | None:
    """Where the device sits, by what the makers' extensions tell: ``0000:3b:00.0``."""
    try:
        slot = int(device.pci_slot_id_nv)
        domain = _told(lambda: int(device.pci_domain_id_nv)) or 0
        return f"{domain:04x}:{int(device.pci_bus_id_nv):02x}:{slot >> 3 & 31:02x}.{slot & 7}"
    except (cl.Error, AttributeError):
        pass
    try:
        at = device.topology_amd
        return f"0000:{int(at.bus) & 255:02x}:{int(at.device) & 31:02x}.{int(at.function) & 7}"
    except (cl.Error, AttributeError):
        return None


def _capability(device: Any) -> str | None:
    return _told(lambda: f"{device.compute_capability_major_nv}.{device.compute_capability_minor_nv}")


def _told(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except (cl.Error, AttributeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A word of a buffer that is not as it was written."""

    address: int
    expected: int
    read: int


class Session:
    """One device, ready to work. Every call that ends without an answer raises DeviceGone."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.vector = 16 if shown.is_cpu else 4
        extensions = str(shown.handle.extensions)
        self.has_fp16 = "cl_khr_fp16" in extensions
        self.has_fp64 = "cl_khr_fp64" in extensions
        with answering():
            self.context = cl.Context([shown.handle])
            self.queue = cl.CommandQueue(self.context)
            self._program = cl.Program(self.context, source()).build(options=self._options())
        self._kernels: dict[str, Any] = {}
        self._count = self.buffer(WORD_BYTES)
        self._found = self.buffer(FOUND_MAX * 3 * WORD_BYTES)
        self.local = LOCAL_SIZE if not shown.is_cpu else LOCAL_SIZE_CPU
        self.grain_bytes = WORD_BYTES * self.vector * ROUNDS * self.local
        """Buffers that kernels work through are multiples of this."""

    def _options(self) -> list[str]:
        options = [f"-DV={self.vector}", f"-DROUNDS={ROUNDS}u"]
        options += ["-DCPU"] if self.shown.is_cpu else []
        options += ["-DFP16"] if self.has_fp16 else []
        return options + (["-DFP64"] if self.has_fp64 else [])

    def buffer(self, size_bytes: int) -> Any:
        """Device memory. Raises MemoryError where there is none left."""
        try:
            return cl.Buffer(self.context, cl.mem_flags.READ_WRITE, size_bytes)
        except (cl.MemoryError, MemoryError):
            raise MemoryError(f"no {size_bytes:,} bytes on {self.shown.name}") from None

    def run(self, name: str, size: tuple[int, ...], local: tuple[int, ...] | None, *args: object) -> None:
        """Start a kernel; numbers are 32-bit words."""
        kernel = self._kernels.get(name)
        with answering():
            if kernel is None:
                kernel = self._kernels[name] = cl.Kernel(self._program, name)
            plain: list[Any] = [
                np.uint32(each & 0xFFFFFFFF) if isinstance(each, int) else each for each in args
            ]
            kernel(self.queue, size, local, *plain)

    def over(self, name: str, buffer: Any, size_bytes: int, *args: object) -> None:
        """Start a kernel that goes through `buffer`, a multiple of `grain_bytes`."""
        assert size_bytes % self.grain_bytes == 0
        items = size_bytes // (WORD_BYTES * self.vector * ROUNDS)
        self.run(name, (items,), (self.local,), buffer, *args)

    def group(self, size: int) -> tuple[int, ...] | None:
        """The group for that many work-items; None where the driver must choose, as they can't be divided."""
        return (self.local,) if size % self.local == 0 else None

    def finish(self) -> None:
        with answering():
            self.queue.finish()

    def copy(self, to: Any, source: Any, **where: Any) -> None:
        """Between two buffers, or a buffer and an array of the host's; the latter waits."""
        with answering():
            cl.enqueue_copy(self.queue, to, source, **where)

    def zero(self, buffer: Any, size_bytes: int, value: int = 0) -> None:
        with answering():
            cl.enqueue_fill_buffer(self.queue, buffer, np.array(value, np.uint32), 0, size_bytes)

    def clear_found(self) -> None:
        self.zero(self._count, WORD_BYTES)

    @property
    def findings(self) -> tuple[Any, Any, int]:
        """What `check_*` and `turn_*` want at the end."""
        return self._count, self._found, FOUND_MAX

    def found(self) -> tuple[int, list[Found]]:
        """How many words were wrong since `clear_found`, and the first of them."""
        count = self.read(self._count, 1)[0]
        told = min(int(count), FOUND_MAX)
        rows = self.read(self._found, told * 3).reshape(-1, 3) if told else ()
        return int(count), [
            Found(address=int(index) * WORD_BYTES, expected=int(expected), read=int(read))
            for index, expected, read in rows
        ]

    def read(self, buffer: Any, words: int) -> Words:
        """The first words of a buffer."""
        array = np.empty(words, np.uint32)
        self.copy(array, buffer)
        return array

    def timed(self, work: Callable[[], None], *, runs: int, repeat: int = 1) -> list[float]:
        """Seconds of each of several runs; the first, which warms up, is not among them."""
        times = []
        for number in range(runs + 1):
            self.finish()
            began = time.perf_counter()
            for _ in range(repeat):
                work()
            self.finish()
            if number:
                times.append((time.perf_counter() - began) / repeat)
        return times


class answering:  # noqa: N801 - read as a phrase: `with answering():`
    """Makes of whatever OpenCL raises a DeviceGone, except for want of memory."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, cl.MemoryError | MemoryError):
            raise MemoryError(str(error)) from None
        if isinstance(error, cl.Error):
            raise DeviceGone(f"the device does not answer: {error}") from error


def source() -> str:
    return resources.files("perak.agent.inspect").joinpath("kernels.cl").read_text()


def kernels_digest() -> str:
    """Which kernels these are, in twelve digits."""
    return hashlib.sha256(source().encode()).hexdigest()[:12]


def median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def spread(values: Iterable[float]) -> float:
    """Half the range of the middle half, relative to the median."""
    low, middle, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    return float((high - low) / 2 / middle) if middle else 0.0


def available_host_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
