"""Overwrite what a lease left in a device: its memory, and the local memory of its compute units.

NIST SP 800-88 Rev. 1, "Clear": everything that a program can address is overwritten once with a fixed value
and read back. What no program reaches (retired pages, replaced rows, caches) is not, so it is never "Purge".
"""

from __future__ import annotations

import time

import pyopencl as cl

from perak.agent.inspect import memory
from perak.agent.inspect.nvml import CardLost
from perak.agent.inspect.opencl import WORD_BYTES, DeviceGone, Session
from perak.agent.inspect.targets import Target
from perak.domain.hardware.inspection import Status
from perak.domain.hardware.wipe import WipeRecord

SHARE_LEAST = 0.95
"""Of the free memory, as with the memory tests; the rest is held by the driver and our own contexts."""
GROUPS_A_UNIT = 8
"""Work-groups for each compute unit, so that every unit's local memory has one."""


def wipe(target: Target | None, *, device: str, lease: str, cpu_bytes_max: int = 64 * 2**20) -> WipeRecord:
    """Overwrite, then read back from a fresh context. What could not be done is told, never passed over."""
    started_at = _now_ms()

    def record(status: Status, reason: str, **figures: int | None) -> WipeRecord:
        return WipeRecord(
            device=device,
            lease=lease,
            status=status,
            reason=reason[:500],
            memory_total_bytes=figures.get("total"),
            memory_bytes=figures.get("written"),
            local_bytes=figures.get("local"),
            leftover_words=figures.get("left"),
            started_at=started_at,
            ended_at=_now_ms(),
        )

    if target is None:
        return record("not_run", "the device is not there")
    if target.shown is None:
        return record("not_run", "no OpenCL platform shows the device, so nothing can be written to it")
    try:
        written, local, free = _overwrite(target, cpu_bytes_max)
        left, read = _read_back(target, free, cpu_bytes_max)
    except (DeviceGone, CardLost, MemoryError, cl.Error) as error:
        return record("failed", f"it ended half-way: {error}")
    total = free if free is not None else target.shown.memory_bytes
    figures = {"written": written, "total": total, "local": local, "left": left}
    if left:
        return record("failed", f"{left:,} words were read back as other than written", **figures)
    if not target.shown.is_cpu and min(written, read) < SHARE_LEAST * total:
        return record("failed", f"only {written:,} of {total:,} bytes could be written", **figures)
    return record("passed", "", **figures)


def _overwrite(target: Target, cpu_bytes_max: int) -> tuple[int, int, int | None]:
    """Zeros over all that is free; then the context is gone, and its buffers with it.

    (bytes written, local memory of a unit, bytes that were free beside our context).
    """
    assert target.shown is not None
    session = Session(target.shown)
    free = target.card.free_bytes if target.card is not None else None
    buffers = memory.take(session, memory.wanted_bytes(session, free_bytes=free, cpu_bytes_max=cpu_bytes_max))
    for each in buffers:
        session.zero(each.memory, each.size_bytes)
    local = _on_local(session, "leave_local")
    session.finish()
    for each in buffers:
        each.memory.release()
    return sum(each.size_bytes for each in buffers), local, free


def _read_back(target: Target, free: int | None, cpu_bytes_max: int) -> tuple[int, int]:
    """(words that are not zero, bytes that were read), without having written any."""
    assert target.shown is not None
    session = Session(target.shown)
    session.clear_found()
    _on_local(session, "count_local")
    left = int(session.found()[0]) if not target.shown.is_cpu else 0
    wanted = memory.wanted_bytes(session, free_bytes=free, cpu_bytes_max=cpu_bytes_max)
    size = min(target.shown.buffer_bytes_max, memory.BUFFER_BYTES_MAX)
    held, read = [], 0
    while wanted - read >= session.grain_bytes:
        each = min(size, wanted - read) // session.grain_bytes * session.grain_bytes
        try:
            buffer = session.buffer(each)
            session.clear_found()
            session.over("check_constant", buffer, each, 0, 0, 0, *session.findings)
            left += session.found()[0]
        except MemoryError:
            if size <= memory.BUFFER_BYTES_LEAST:
                break
            size //= 2
            continue
        held.append(buffer)  # Kept, so that the next is other memory.
        read += each
    return left, read


def _on_local(session: Session, kernel: str) -> int:
    """Run over the local memory of every unit; how much each has."""
    local_bytes = session.shown.local_bytes // 2 // WORD_BYTES * WORD_BYTES
    if not session.shown.is_cpu:
        local_bytes = session.shown.local_bytes // WORD_BYTES * WORD_BYTES - 256
    groups = session.shown.compute_units * GROUPS_A_UNIT
    extra = (session.findings[0],) if kernel == "count_local" else ()
    size = 64
    session.run(
        kernel, (groups * size,), (size,), cl.LocalMemory(local_bytes), local_bytes // WORD_BYTES, 0, *extra
    )
    session.finish()
    return local_bytes


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
