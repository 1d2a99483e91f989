"""Every parser that faces a stranger meets its corpus, and the same inputs cut, joined and damaged."""

from __future__ import annotations

import random

import pytest

from fuzz.targets import TARGETS

DAMAGED = 60
"""Inputs made of the seeds for each target: the same ones each time. `make fuzz` looks for new ones."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_refuses_what_it_can_not_read_and_never_fails(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(name)  # repeatable, not secret
    assert target(target.seeds[0]), "the first seed is one that the parser reads: damage begins from there"
    outcomes = {target(seed) for seed in target.seeds}
    for _ in range(DAMAGED):
        data = bytearray(chance.choice(target.seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randint(0, len(data))
            match chance.randint(0, 3):
                case 0:
                    del data[place : place + chance.randint(1, 20)]
                case 1:
                    data[place:place] = chance.randbytes(chance.randint(1, 4))
                case 2:
                    data[place:place] = chance.choice(
                        (b"\0", b"\xff", b"-1", b"1e400", b"NaN", b"[[[[", b'"')
                    )
                case _:
                    data[place:place] = data[: chance.randint(0, 200)]
        outcomes.add(target(bytes(data)))
    assert False in outcomes, "damage is refused, not read as if nothing had happened"
