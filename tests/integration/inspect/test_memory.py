"""The memory tests on a real OpenCL device: every flipped bit is found, and none that was not flipped."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from perak.agent.inspect.memory import FULL, QUICK, Buffer, Effort, MemoryTests, take
from perak.agent.inspect.opencl import Session
from perak.domain.hardware import inspection as i

WORDS = 128 * 1024
FLIPS = 10_000
FLIPS_A_PASS = 100
PASSES = 1_000
SMALL = Effort(inversion_seeds=(0,), random_seeds=(1,), fade_seconds=0.0)


def buffers(session: Session, *, words: int = WORDS, count: int = 1) -> list[Buffer]:
    return [Buffer(session.buffer(words * 4), words * 4, words * number) for number in range(count)]


def flip(session: Session, memory: Any, bits: dict[int, int]) -> None:
    """Flip a bit of each of these words, by hand, as radiation would."""
    array = session.read(memory, WORDS)
    for word, bit in bits.items():
        array[word] ^= np.uint32(1 << bit)
    session.copy(memory, array)


def test_ten_thousand_flipped_bits_are_found_with_address_and_mask(session: Session) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    under_test = buffers(session)
    tests = MemoryTests(session=session, buffers=under_test, effort=SMALL)
    for number in range(FLIPS // FLIPS_A_PASS):
        pattern = ("address", "constant", "random", "checkerboard")[number % 4]
        bits = {word: rng.randrange(32) for word in rng.sample(range(WORDS), FLIPS_A_PASS)}
        written = rng.randrange(2**32)
        tests.fill(pattern, written)
        flip(session, under_test[0].memory, bits)
        tests.mismatches.clear()
        # Half of them by the pass that writes the inverse: it must see what it overwrites.
        wrong = tests.check("test", pattern, written, turn=number % 2 == 1)
        found = {each.address // 4: each.mask for each in tests.mismatches}
        assert found == {word: 1 << bit for word, bit in bits.items()}, f"seed {seed}, pass {number}"
        assert wrong == FLIPS_A_PASS, f"seed {seed}, pass {number}"


def test_a_thousand_clean_passes_invent_nothing(session: Session) -> None:
    tests = MemoryTests(session=session, buffers=buffers(session), effort=SMALL)
    for number in range(PASSES):
        pattern = ("address", "constant", "random", "checkerboard")[number % 4]
        tests.fill(pattern, number)
        assert tests.check("test", pattern, number) == 0, f"pass {number}"
    assert tests.mismatches == []


@pytest.mark.parametrize("call", range(10))
def test_a_bit_that_flips_once_fails_the_test_that_runs(session: Session, call: int) -> None:
    calls = 0

    def spoil(session: Session, under_test: list[Buffer]) -> None:
        nonlocal calls
        if calls == call:
            flip(session, under_test[1].memory, {4321: 7})
        calls += 1

    under_test = buffers(session, count=2)
    tests = MemoryTests(
        session=session, buffers=under_test, effort=SMALL, hook=spoil, pause=lambda seconds: None
    )
    failed = [check for check in tests.run() if check.status == "failed"]
    assert calls > call
    assert [check.value for check in failed] == [1]
    assert [(each.check, each.buffer, each.address, each.mask) for each in tests.mismatches] == [
        (failed[0].name, 1, 4321 * 4, 1 << 7)
    ]
    assert hex(4321 * 4) in failed[0].reason


def test_all_six_patterns_pass_on_a_healthy_device(session: Session) -> None:
    tests = MemoryTests(session=session, buffers=buffers(session, count=2), effort=SMALL)
    found = list(tests.run())
    assert [check.name for check in found] == [
        i.MEMORY_MOVING_INVERSIONS,
        i.MEMORY_ADDRESS,
        i.MEMORY_RANDOM,
        i.MEMORY_CHECKERBOARD,
        i.MEMORY_BIT_FADE,
        i.MEMORY_BLOCK_MOVE,
    ]
    assert {check.status for check in found} == {"passed"}


def test_memory_that_is_shown_twice_is_found(session: Session) -> None:
    """24 GB shown as 48: what is written to the second half comes back from the first."""

    def alias(session: Session, under_test: list[Buffer]) -> None:
        session.copy(under_test[0].memory, under_test[1].memory)
        session.finish()

    tests = MemoryTests(session=session, buffers=buffers(session, count=2), effort=SMALL, hook=alias)
    by_name = {check.name: check for check in tests.run()}
    assert by_name[i.MEMORY_ADDRESS].status == "failed"
    assert by_name[i.MEMORY_ADDRESS].value == 2 * WORDS
    assert by_name[i.MEMORY_RANDOM].status == "failed"


def test_a_slowed_kernel_is_found(make_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session()
    again = session.over

    def slowly(name: str, *arguments: object) -> None:
        for _ in range(30 if name == "check_random" else 1):
            again(name, *arguments)

    monkeypatch.setattr(Session, "over", lambda self, name, *arguments: slowly(name, *arguments))
    check = MemoryTests(session=session, buffers=buffers(session), effort=SMALL).speed_check()
    assert (check.name, check.status) == (i.MEMORY_SPEED, "failed")


def test_memory_is_taken_in_several_buffers_where_one_may_not_be_large(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 32 * 2**20
    real = Session.buffer

    def small(self: Session, size_bytes: int) -> Any:
        if size_bytes > limit:
            raise MemoryError("a quarter at most")
        return real(self, size_bytes)

    monkeypatch.setattr(Session, "buffer", small)
    taken = take(session, 80 * 2**20)
    assert sum(each.size_bytes for each in taken) == 80 * 2**20
    assert len(taken) >= 3
    assert [each.first for each in taken] == [
        sum(other.size_bytes for other in taken[:number]) // 4 for number in range(len(taken))
    ]


def test_the_thorough_effort_has_more_than_the_quick_one() -> None:
    assert set(QUICK.inversion_seeds) < set(FULL.inversion_seeds)
    assert set(QUICK.random_seeds) < set(FULL.random_seeds)
    assert QUICK.fade_seconds is None
    assert FULL.fade_seconds
