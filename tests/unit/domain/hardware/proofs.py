"""Answers to challenges, honest and not, made without any device."""

from __future__ import annotations

from perak.domain.hardware import challenge as c
from perak.domain.hardware.challenge import BLOCK_LEAVES, Answer, Challenge, DeviceProof, Opening

ASKED = Challenge(id="x", nonce="5a" * 16, devices=("GPU-0", "GPU-1"), leaves=64, steps=8)


def leaves_of(asked: Challenge, device: str, *, done: float = 1.0) -> list[int]:
    """What an honest device makes; of one that does part of the work, the rest is made up."""
    seed = c.seed_words(asked.nonce, device)
    made = [c.leaf(seed, number, steps=asked.steps) for number in range(asked.leaves)]
    return [each if number < done * asked.leaves else number for number, each in enumerate(made)]


def proof(asked: Challenge, device: str, leaves: list[int]) -> DeviceProof:
    blocks = [leaves[at : at + BLOCK_LEAVES] for at in range(0, len(leaves), BLOCK_LEAVES)]
    levels = c.tree([c.block_hash(block) for block in blocks])
    root = levels[-1][0].hex()
    wanted = {n // BLOCK_LEAVES for n in c.opened(asked.nonce, device, root, leaves=asked.leaves)}
    openings = tuple(
        Opening(block=each, leaves=tuple(blocks[each]), path=c.path(levels, each)) for each in sorted(wanted)
    )
    return DeviceProof(device=device, root=root, openings=openings, seconds=1.0)


def answer(asked: Challenge = ASKED, *, done: float = 1.0) -> Answer:
    return Answer(
        challenge=asked.id,
        proofs=tuple(proof(asked, device, leaves_of(asked, device, done=done)) for device in asked.devices),
    )
