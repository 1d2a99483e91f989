"""Challenges: only work that was done, on as many devices as there are, is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perak.domain.hardware import challenge as c
from perak.domain.hardware.challenge import BLOCK_LEAVES, Answer, Challenge
from unit.domain.hardware.proofs import ASKED, answer


def check(given: Answer, *, asked: Challenge = ASKED, elapsed: float = 1.0) -> tuple[str, ...]:
    return c.check(asked, given, elapsed_seconds=elapsed, allowed_seconds=10.0)


def test_honest_work_in_time_is_taken() -> None:
    assert check(answer()) == ()


@pytest.mark.parametrize("leaves", [16, 48, 80, 112])
def test_trees_of_any_number_of_blocks_lead_to_their_roots(leaves: int) -> None:
    asked = replace(ASKED, leaves=leaves, steps=2)
    assert check(answer(asked), asked=asked) == ()


def test_a_device_that_did_half_of_the_work_is_found_out() -> None:
    found = check(answer(done=0.5))
    assert len(found) == 2
    assert all("is wrong" in each for each in found)


def test_eight_devices_that_are_one_take_too_long() -> None:
    asked = replace(ASKED, devices=tuple(f"GPU-{number}" for number in range(8)), leaves=16, steps=2)
    alone = asked.leaves * c.LANES * asked.steps / 1e3
    limit = c.allowed(asked, [1e3] * 8, overhead_seconds=0.1)
    assert limit is not None
    found = c.check(asked, answer(asked), elapsed_seconds=8 * alone, allowed_seconds=limit)
    assert ["fewer than they say" in each for each in found] == [True]
    assert c.check(asked, answer(asked), elapsed_seconds=1.2 * alone, allowed_seconds=limit) == ()


def test_two_that_are_one_take_longer_than_is_allowed_where_the_work_is_long() -> None:
    asked = replace(ASKED, leaves=1024, steps=2048)
    rate = asked.leaves * c.LANES * asked.steps / 10.0
    limit = c.allowed(asked, [rate, rate], overhead_seconds=4.0)
    assert limit is not None
    assert 10.0 < limit < 20.0


def test_a_device_whose_speed_is_not_known_has_no_limit() -> None:
    assert c.allowed(ASKED, [1e9, None], overhead_seconds=1.0) is None


def test_the_work_of_another_device_or_another_nonce_is_not_taken() -> None:
    honest = answer()
    stolen = replace(honest.proofs[0], device="GPU-1")
    assert check(Answer(challenge="x", proofs=(honest.proofs[0], stolen)))
    old = replace(ASKED, nonce="00" * 16)
    assert check(answer(old))


def test_what_is_missing_is_told() -> None:
    assert check(Answer(challenge="x", proofs=answer().proofs[:1])) == ("GPU-1 did not answer",)
    assert "no card" in check(Answer(challenge="x", problem="no card"))[0]
    one = answer().proofs[0]
    unopened = replace(one, openings=())
    assert "was not shown" in check(Answer(challenge="x", proofs=(unopened, answer().proofs[1])))[0]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_changed_proof_is_taken(data: st.DataObject) -> None:
    honest = answer().proofs[0]
    number = data.draw(st.integers(0, len(honest.openings) - 1))
    opening = honest.openings[number]
    change = data.draw(st.sampled_from(["leaf", "path", "root", "block"]))
    if change == "leaf":
        at = data.draw(st.integers(0, BLOCK_LEAVES - 1))
        leaves = list(opening.leaves)
        leaves[at] ^= 1 << data.draw(st.integers(0, 31))
        changed = replace(opening, leaves=tuple(leaves))
    elif change == "path":
        changed = replace(opening, path=("00" * 32, *opening.path[1:]))
    elif change == "block":
        changed = replace(opening, block=opening.block + 1)
    else:
        changed = opening
    openings = (*honest.openings[:number], changed, *honest.openings[number + 1 :])
    root = "ab" * 32 if change == "root" else honest.root
    forged = replace(honest, openings=openings, root=root)
    assert check(Answer(challenge="x", proofs=(forged, answer().proofs[1])))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), st.integers(0, 2**26))
@settings(max_examples=20, deadline=None)
def test_a_leaf_is_the_sum_of_its_chains(seed: list[int], number: int) -> None:
    """All lanes in one integer do what one lane at a time does."""
    s0, s1, s2, s3 = seed
    mask, total = 0xFFFFFFFF, 0
    for lane in range(number * c.LANES, (number + 1) * c.LANES):
        low = lane & mask
        x = ((low ^ s0) * 0x9E3779B1 + s1) & mask
        y = ((low << 16 | low >> 16) & mask) ^ s2
        for _ in range(3):
            x = ((x ^ x >> 15) * 0x2C1B3C6D + y) & mask
            y = ((y << 13 | y >> 19) & mask) ^ (x + s3 & mask)
        total += x ^ y
    assert c.leaf((s0, s1, s2, s3), number, steps=3) == total & mask
