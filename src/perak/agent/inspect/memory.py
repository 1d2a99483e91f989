"""Tests of a device's memory: patterns written over all that is free, and read back.

After memtest86's tests (moving inversions, own address, random, block move, bit fade) and those of MemtestG80
and cuda_memtest on GPUs. Every buffer is written before any is read, so that memory which is shown twice is
found by the words of the one in the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perak.agent.inspect.opencl import ROUNDS, WORD_BYTES, Session, available_host_bytes, median, spread
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import MISMATCHES_KEPT_MAX, Check, Mismatch

ALL = 0xFFFFFFFF
SHARE_LEAST = 0.95
"""Of a GPU's free memory, which has to be tested (the rest is the driver's and our own)."""
SPEED_LEAST = 0.60
"""Of the device's own copy: below, the tests would load the memory less than a job does."""
BUFFER_BYTES_MAX = 4 * 2**30
"""One launch is then over in a second on the slowest card, before any watchdog's patience."""
BUFFER_BYTES_LEAST = 16 * 2**20
SPEED_ROUNDS = 5
SPEED_TRIES = 3
"""Another program that takes memory's time makes either side slower: what fails once is measured again."""
KEPT_FREE_BYTES = 64 * 2**20
"""For the results, and what drivers allot of their own on the way."""
MOVED_WORDS = 32
"""How far a block is shifted: one line of the caches."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A part of the memory under test; `first` is the number of its first word among all of them."""

    memory: Any
    size_bytes: int
    first: int


Hook = Callable[[Session, list[Buffer]], None]
"""Called between writing and reading. Tests flip bits here; nothing of ours does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thorough: seeds of the patterns, and how long bits are left alone (memtest86: minutes)."""

    inversion_seeds: tuple[int, ...]
    random_seeds: tuple[int, ...]
    fade_seconds: float | None


QUICK = Effort(inversion_seeds=(0,), random_seeds=(0x5EED,), fade_seconds=None)
FULL = Effort(
    inversion_seeds=(0, *(0x01010101 << bit for bit in range(8))),
    random_seeds=(0x5EED, 0xC0FFEE, 0xDECADE, 0xFACADE),
    fade_seconds=20.0,
)


def take(session: Session, wanted_bytes: int) -> list[Buffer]:
    """As much of `wanted_bytes` as the device gives, in as many buffers as it takes."""
    size = min(session.shown.buffer_bytes_max, BUFFER_BYTES_MAX, wanted_bytes)
    buffers: list[Buffer] = []
    left, first = wanted_bytes, 0
    while left >= session.grain_bytes:
        each = min(size, left) // session.grain_bytes * session.grain_bytes
        try:
            memory = session.buffer(each)
            session.zero(memory, each)  # Drivers allot as late as they can: here it shows.
            session.finish()
        except MemoryError:
            if size <= BUFFER_BYTES_LEAST:
                break
            size //= 2
            continue
        buffers.append(Buffer(memory, each, first))
        left -= each
        first += each // WORD_BYTES
    return buffers


def wanted_bytes(session: Session, *, free_bytes: int | None, cpu_bytes_max: int) -> int:
    """What to test: all that is free of a GPU, a bounded part of a machine's own memory."""
    if session.shown.is_cpu:
        return min(cpu_bytes_max, available_host_bytes() // 4)
    free = free_bytes if free_bytes is not None else session.shown.memory_bytes
    return max(free - KEPT_FREE_BYTES, int(free * SHARE_LEAST))


@dataclass(slots=True, kw_only=True)
class MemoryTests:
    """The six tests over `buffers`; `hook` is called between writing and reading."""

    session: Session
    buffers: list[Buffer]
    effort: Effort
    hook: Hook | None = None
    pause: Callable[[float], None] = time.sleep
    mismatches: list[Mismatch] = field(default_factory=list)

    def run(self) -> Iterator[Check]:
        """Each test in turn; what it found is in `mismatches` too."""
        yield self._checked(i.MEMORY_MOVING_INVERSIONS, self._moving_inversions)
        yield self._checked(i.MEMORY_ADDRESS, self._address)
        yield self._checked(i.MEMORY_RANDOM, self._random)
        yield self._checked(i.MEMORY_CHECKERBOARD, self._checkerboard)
        if self.effort.fade_seconds is not None:
            yield self._checked(i.MEMORY_BIT_FADE, self._bit_fade)
        yield self._checked(i.MEMORY_BLOCK_MOVE, self._block_move)

    def speed_check(self) -> Check:
        """How near the kernels come to the device's own copy, measured in turns so that both see one load."""
        buffer = max(self.buffers, key=lambda each: each.size_bytes)
        half = buffer.size_bytes // 2 // self.session.grain_bytes * self.session.grain_bytes
        if not half:
            return _result(i.MEMORY_SPEED, "not_run", "the buffers are too small to measure a copy in")
        self.session.over("fill_random", buffer.memory, 2 * half, 0, 0, 0)
        for _ in range(SPEED_TRIES):
            check = self._speed(buffer.memory, half)
            if check.status == "passed":
                break
        return check

    def _speed(self, memory: Any, half: int) -> Check:
        session = self.session
        lower, upper = memory.get_sub_region(0, half), memory.get_sub_region(half, half)
        shares, found = [], []
        for _ in range(SPEED_ROUNDS):
            copied = min(
                session.timed(lambda: session.over("copy", lower, half, upper), runs=1)[0],
                session.timed(lambda: session.copy(upper, lower), runs=1)[0],
            )
            session.over("fill_random", memory, 2 * half, 0, 0, 0)
            session.clear_found()
            kernels = [
                session.timed(lambda: session.over("fill_random", memory, 2 * half, 0, 0, 0), runs=1)[0],
                session.timed(
                    lambda: session.over("check_random", memory, 2 * half, 0, 0, 0, *session.findings), runs=1
                )[0],
            ]
            found.append(4 * half / sum(kernels) / 1e9)
            shares.append(copied * 2 / sum(kernels))
        share = median(shares)
        return Check(
            name=i.MEMORY_SPEED,
            status="passed" if share >= SPEED_LEAST else "failed",
            reason=f"{median(found):.1f} of {median(found) / share:.1f} GB/s",
            value=share,
            unit="share",
            threshold=SPEED_LEAST,
            source="OpenCL",
            spread=spread(shares),
        )

    def _checked(self, name: str, test: Callable[[str], int]) -> Check:
        wrong = test(name)
        told = [each for each in self.mismatches if each.check == name]
        first = told[0] if told else None
        where = (
            f"first at byte {first.address:#x} of buffer {first.buffer}: "
            f"{first.expected:#010x} written, {first.read:#010x} read, mask {first.mask:#010x}"
            if first
            else ""
        )
        return Check(
            name=name,
            status="failed" if wrong else "passed",
            reason=where,
            value=wrong,
            unit="mismatches",
            threshold=0,
            source="OpenCL",
        )

    def _moving_inversions(self, name: str) -> int:
        wrong = 0
        for seed in self.effort.inversion_seeds:
            self.fill("constant", seed)
            wrong += self.check(name, "constant", seed, turn=True)
            wrong += self.check(name, "constant", seed ^ ALL, turn=True)
            wrong += self.check(name, "constant", seed)
        return wrong

    def _address(self, name: str) -> int:
        wrong = 0
        for seed in (0, ALL):
            self.fill("address", seed)
            wrong += self.check(name, "address", seed)
        return wrong

    def _random(self, name: str) -> int:
        wrong = 0
        for seed in self.effort.random_seeds:
            self.fill("random", seed)
            wrong += self.check(name, "random", seed)
        return wrong

    def _checkerboard(self, name: str) -> int:
        self.fill("checkerboard", 0)
        return self.check(name, "checkerboard", 0, turn=True) + self.check(name, "checkerboard", ALL)

    def _bit_fade(self, name: str) -> int:
        assert self.effort.fade_seconds is not None
        wrong = 0
        for seed in (0, ALL):
            self.fill("constant", seed)
            self.pause(self.effort.fade_seconds)
            wrong += self.check(name, "constant", seed)
        return wrong

    def _block_move(self, name: str) -> int:
        """Halves are copied over each other, shifted, by the device's copy engine; then all is checked.

        A word of the lower half then holds what was `MOVED_WORDS` above it, but for the last, which stay.
        """
        self.fill("random", 1)
        session = self.session
        for each in self.buffers:
            half = each.size_bytes // 2
            if half % session.grain_bytes:
                continue
            shift = MOVED_WORDS * WORD_BYTES
            session.copy(each.memory, each.memory, src_offset=0, dst_offset=half, byte_count=half)
            for start, size in _steps(half - shift):
                session.copy(
                    each.memory,
                    each.memory,
                    src_offset=half + shift + start,
                    dst_offset=start,
                    byte_count=size,
                )
        session.finish()
        self._hook()
        wrong = 0
        for number, each in enumerate(self.buffers):
            half = each.size_bytes // 2
            if half % session.grain_bytes:
                wrong += self._look(name, number, each.size_bytes, each.first, "random", 1)
                continue
            lower = half - MOVED_WORDS * WORD_BYTES
            whole = lower // session.grain_bytes * session.grain_bytes
            wrong += self._look(name, number, whole, each.first + MOVED_WORDS, "random", 1)
            wrong += self._look(name, number, half, each.first, "random", 1, offset=half)
        return wrong

    # One pass over all buffers

    def fill(self, pattern: str, seed: int) -> None:
        """Write a pattern over every buffer, and wait for it."""
        for each in self.buffers:
            self.session.over(f"fill_{pattern}", each.memory, each.size_bytes, *_halves(each.first), seed)
        self.session.finish()
        self._hook()

    def check(self, name: str, pattern: str, seed: int, *, turn: bool = False) -> int:
        """Read every buffer back, with `turn` writing its inverse; how many words were wrong."""
        kernel = "turn" if turn else "check"
        wrong = sum(
            self._look(name, number, each.size_bytes, each.first, pattern, seed, kernel=kernel)
            for number, each in enumerate(self.buffers)
        )
        if turn:
            self._hook()
        return wrong

    def _look(
        self,
        name: str,
        number: int,
        size_bytes: int,
        first: int,
        pattern: str,
        seed: int,
        *,
        kernel: str = "check",
        offset: int = 0,
    ) -> int:
        session = self.session
        buffer = self.buffers[number].memory
        part = buffer.get_sub_region(offset, size_bytes) if offset else buffer
        session.clear_found()
        session.over(f"{kernel}_{pattern}", part, size_bytes, *_halves(first), seed, *session.findings)
        count, found = session.found()
        room = MISMATCHES_KEPT_MAX - sum(1 for each in self.mismatches if each.check == name)
        self.mismatches += [
            Mismatch(
                check=name,
                buffer=number,
                address=offset + each.address,
                expected=each.expected,
                read=each.read,
                mask=each.expected ^ each.read,
            )
            for each in found[:room]
        ]
        return count

    def _hook(self) -> None:
        if self.hook is not None:
            self.hook(self.session, self.buffers)


def share_check(session: Session, buffers: list[Buffer], *, free_bytes: int | None) -> Check:
    """How much of the free memory the tests covered."""
    tested = sum(each.size_bytes for each in buffers)
    if session.shown.is_cpu:
        free, why = available_host_bytes() + tested, "a bounded part of the machine's memory, on purpose: "
    elif free_bytes is None:
        free, why = session.shown.memory_bytes, "of all of it, as nothing tells what is free: "
    else:
        free, why = free_bytes, ""
    share = min(1.0, tested / free)
    least = None if session.shown.is_cpu else SHARE_LEAST
    return Check(
        name=i.MEMORY_SHARE,
        status="passed" if least is None or share >= least else "failed",
        reason=f"{why}{tested / 2**20:,.0f} of {free / 2**20:,.0f} MiB in {_buffers(buffers)}",
        value=share,
        unit="share",
        threshold=least,
        source="OpenCL",
    )


def _buffers(buffers: list[Buffer]) -> str:
    return "one buffer" if len(buffers) == 1 else f"{len(buffers)} buffers"


def _result(name: str, status: i.Status, reason: str) -> Check:
    return Check(name=name, status=status, reason=reason, unit=i.BY_NAME[name].unit)


def _halves(number: int) -> tuple[int, int]:
    return number & ALL, number >> 32


def _steps(size_bytes: int, most: int = 2**30) -> Iterator[tuple[int, int]]:
    for start in range(0, size_bytes, most):
        yield start, min(most, size_bytes - start)


assert ROUNDS * WORD_BYTES * 4 % (MOVED_WORDS * WORD_BYTES) == 0, "a block would be shifted across a launch"
