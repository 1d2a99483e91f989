"""How much a device gets done: each figure the median of several timed runs, with its spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyopencl as cl

from perak.agent.inspect.opencl import Session, median, spread
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check

RUNS = 5
COPY_BYTES_MAX = 2**30
COPY_BYTES_CPU = 128 * 2**20
"""Several times any processor's cache, at which a copy would be measured otherwise."""
TRANSFER_BYTES = 64 * 2**20
CHAINS = 8
CONTENDED = 0.25
"""A spread above it is told: something else is at work on the device."""


def rates(session: Session, *, run_seconds: float, cpu_bytes_max: int) -> Iterator[Check]:
    """The checks of throughput that OpenCL can make; `cpu_bytes_max` bounds what a processor copies."""
    yield measured(i.COPY, copy_rates(session, cpu_bytes_max=cpu_bytes_max))
    for name, kernel, there in (
        (i.FP32, "fp32", True),
        (i.FP16, "fp16", session.has_fp16),
        (i.FP64, "fp64", session.has_fp64),
    ):
        if there:
            yield measured(name, fma_rates(session, kernel, run_seconds=run_seconds))
        else:
            yield _absent(name, f"the device has no {kernel.upper()} in OpenCL")
    to_device, from_device = transfer_rates(session, min(TRANSFER_BYTES, cpu_bytes_max))
    yield measured(i.TO_DEVICE, to_device)
    yield measured(i.FROM_DEVICE, from_device)


def measured(name: str, found: list[float], *, source: str = "OpenCL") -> Check:
    """A figure and its spread; it passes by being there."""
    wide = spread(found)
    return Check(
        name=name,
        status="passed",
        reason="the runs differ widely: something else is at work on it" if wide > CONTENDED else "",
        value=median(found),
        unit=i.BY_NAME[name].unit,
        source=source,
        spread=wide,
    )


def copy_rates(session: Session, *, cpu_bytes_max: int = COPY_BYTES_CPU) -> list[float]:
    """GB/s, reads and writes counted, of the better of a kernel's copy and the copy engine's."""
    most = min(COPY_BYTES_MAX, session.shown.buffer_bytes_max // 4)
    if session.shown.is_cpu:
        most = min(COPY_BYTES_CPU, cpu_bytes_max)
    size = most // session.grain_bytes * session.grain_bytes
    one, other = session.buffer(size), session.buffer(size)
    for each in (one, other):
        session.zero(each, size, 0x5EED)  # Pages that were never written read as one and the same.

    def rates(work: Callable[[], None]) -> list[float]:
        return [2 * size / seconds / 1e9 for seconds in session.timed(work, runs=RUNS)]

    by_kernel = rates(lambda: session.over("copy", one, size, other))
    by_engine = rates(lambda: session.copy(other, one))
    return max(by_kernel, by_engine, key=median)


def fma_rates(session: Session, kernel: str, *, run_seconds: float) -> list[float]:
    """TFLOP/s of fused multiply-adds in registers, a multiply and an add each counted."""
    items = session.shown.compute_units * (64 if session.shown.is_cpu else 2048 * 4)
    items -= items % session.local
    out = session.buffer(items * 8)
    rounds = 64

    def work() -> None:
        session.run(f"fma_{kernel}", (items,), (session.local,), out, rounds)

    seconds = session.timed(work, runs=1)[0]
    while seconds < run_seconds / 4 and rounds < 2**24:
        rounds *= 4
        seconds = session.timed(work, runs=1)[0]
    rounds = max(64, int(rounds * run_seconds / seconds))
    flops = items * rounds * CHAINS * session.vector * 2
    return [flops / each / 1e12 for each in session.timed(work, runs=RUNS)]


def transfer_rates(session: Session, size: int) -> tuple[list[float], list[float]]:
    """GB/s to the device and from it, by memory that the driver has pinned where it can."""
    buffer = session.buffer(size)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
    pinned = cl.Buffer(session.context, flags, size)
    how: Any = cl.map_flags.READ | cl.map_flags.WRITE
    shape, words = (size // 4,), np.dtype(np.uint32)
    array: Any = cl.enqueue_map_buffer(session.queue, pinned, how, 0, shape, words)[0]
    array[:] = 0x5EED

    def rates(to: Any, source: Any) -> list[float]:
        times = session.timed(lambda: session.copy(to, source), runs=RUNS)
        return [size / each / 1e9 for each in times]

    found = rates(buffer, array), rates(array, buffer)
    array.base.release(session.queue)
    return found


def _absent(name: str, why: str) -> Check:
    return Check(name=name, status="not_run", reason=why, unit=i.BY_NAME[name].unit)
