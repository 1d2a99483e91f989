"""Proof that several devices are several: work that each must do at once, seeded by the exchange's nonce.

Each device makes `leaves` numbers; a leaf is the sum of the ends of 64 chains of `steps` steps, each chain of
its own beginning, so none can be had without the work and none twice. The node commits to all of them by a
Merkle tree (SHA-256) over blocks of leaves. Which leaves are opened follows from the root and the nonce
(Fiat and Shamir, 1986), so the node could not choose them, and the exchange makes those anew by itself: a
card that did half of the work is found out but once in 2^32. That a card did all of it says nothing of its
speed; the exchange's own clock does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LANES = 64
"""Chains of one leaf."""
STEPS = 2048
BLOCK_LEAVES = 16
"""Leaves under one hash of the tree, which are shown together; the way to the root takes most of the room."""
OPENED = 32
"""Half of the work passes then once in 2^32, and the exchange makes 32 leaves in a second."""
LEAVES_MOST = 2**26
"""A quarter of a gibibyte of answers on the device."""
TOLERANCE = 1.5
"""How much longer than alone devices may take at once: two that are one take twice as long."""
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What the exchange asks for. `nonce`: 32 hex digits of its own; `devices`: UUIDs that must answer."""

    id: str
    nonce: str
    devices: tuple[str, ...]
    leaves: int
    """Of each device; a multiple of BLOCK_LEAVES."""
    steps: int = STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A block of leaves, and the hashes beside its way to the root."""

    block: int
    leaves: tuple[int, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProof:
    """One device's answer. `seconds`: by the node's clock, for people."""

    device: str
    root: str
    openings: tuple[Opening, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A node's answer to a challenge; `problem`: why there is none."""

    challenge: str
    proofs: tuple[DeviceProof, ...] = ()
    problem: str = ""


def seed_words(nonce: str, device: str) -> tuple[int, int, int, int]:
    """The beginning of a device's chains: four words, from the nonce and its UUID."""
    digest = hashlib.sha256(f"perak challenge\n{nonce}\n{device}".encode()).digest()
    words = [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4)]
    return words[0], words[1], words[2], words[3]


def leaf(seed: tuple[int, int, int, int], number: int, *, steps: int) -> int:
    """One leaf, as the kernel `prove` makes it. All its lanes are in one integer, 64 bits apart."""
    lanes = [number * LANES + lane & _MASK for lane in range(LANES)]
    x = _packed(((lane ^ seed[0]) * 0x9E3779B1 + seed[1]) & _MASK for lane in lanes)
    y = _packed(((lane << 16 | lane >> 16) & _MASK) ^ seed[2] for lane in lanes)
    every, s3 = _packed([_MASK] * LANES), _packed([seed[3]] * LANES)
    for _ in range(steps):
        # What is shifted into a lane from its neighbour lies above its 32 bits, and is masked away.
        x = ((x ^ ((x >> 15) & every)) & every) * 0x2C1B3C6D + y & every
        y = ((y << 13 & every) | (y >> 19 & every)) ^ (x + s3 & every)
    ends = x ^ y
    return sum(ends >> 64 * lane & _MASK for lane in range(LANES)) & _MASK


def _packed(values: Iterable[int]) -> int:
    return int.from_bytes(b"".join(value.to_bytes(8, "little") for value in values), "little")


def block_hash(leaves: Iterable[int]) -> bytes:
    return block_hash_of(b"".join(each.to_bytes(4, "little") for each in leaves))


def block_hash_of(data: bytes) -> bytes:
    """The tree's hash over the bytes of one block of leaves."""
    return hashlib.sha256(b"\0" + data).digest()


def tree(blocks: Sequence[bytes]) -> list[list[bytes]]:
    """The levels of the tree over the blocks' hashes, the root last; one without a neighbour moves up."""
    levels = [list(blocks)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = [_parent(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
        levels.append(pairs + ([below[-1]] if len(below) % 2 else []))
    return levels


def path(levels: Sequence[Sequence[bytes]], block: int) -> tuple[str, ...]:
    """The hashes beside the way from a block to the root; empty where there is none."""
    found = []
    for level in levels[:-1]:
        beside = block ^ 1
        found.append(level[beside].hex() if beside < len(level) else "")
        block //= 2
    return tuple(found)


def opened(nonce: str, device: str, root: str, *, leaves: int) -> tuple[int, ...]:
    """The leaves that must be shown: they follow from what was committed to."""
    numbers = []
    for count in range(OPENED):
        digest = hashlib.sha256(f"{nonce}\n{device}\n{root}\n{count}".encode()).digest()
        numbers.append(int.from_bytes(digest[:8], "little") % leaves)
    return tuple(numbers)


def check(
    challenge: Challenge, answer: Answer, *, elapsed_seconds: float, allowed_seconds: float | None
) -> tuple[str, ...]:
    """Why the answer doesn't show that the devices are several and at work; empty: it does.

    `elapsed_seconds`: by the exchange's own clock, from asking to the whole answer; `allowed_seconds`: see
    `allowed`, None where nothing is known of a device. Makes OPENED leaves for each device: some 0.3 s.
    """
    if answer.problem:
        return (f"the node could not answer: {answer.problem[:300]}",)
    problems = []
    proofs = {proof.device: proof for proof in answer.proofs}
    for device in challenge.devices:
        if device not in proofs:
            problems.append(f"{device} did not answer")
        elif wrong := _wrong(challenge, proofs[device]):
            problems.append(f"{device}: {wrong}")
    if len({proof.root for proof in answer.proofs}) < len(proofs):
        problems.append("two devices gave one answer")
    if allowed_seconds is not None and elapsed_seconds > allowed_seconds:
        problems.append(
            f"the {len(challenge.devices)} devices took {elapsed_seconds:.1f} s together, where each "
            f"alone would have let them take {allowed_seconds:.1f} s: they are fewer than they say"
        )
    return tuple(problems)


def allowed(
    challenge: Challenge, steps_per_second: Iterable[float | None], *, overhead_seconds: float
) -> float | None:
    """How long devices of these speeds, measured alone, may take at once; None where one is not known.

    `overhead_seconds`: for the network, and for a process that starts and translates its kernels.
    """
    rates = list(steps_per_second)
    known = [rate for rate in rates if rate]
    if len(known) < len(rates) or not known:
        return None
    return challenge.leaves * LANES * challenge.steps / min(known) * TOLERANCE + overhead_seconds


def _wrong(challenge: Challenge, proof: DeviceProof) -> str | None:
    """What is wrong with one device's proof."""
    seed = seed_words(challenge.nonce, proof.device)
    blocks = {opening.block: opening for opening in proof.openings}
    depth = max(0, (challenge.leaves // BLOCK_LEAVES - 1).bit_length())
    for number in opened(challenge.nonce, proof.device, proof.root, leaves=challenge.leaves):
        opening = blocks.get(number // BLOCK_LEAVES)
        if opening is None or len(opening.leaves) != BLOCK_LEAVES or len(opening.path) != depth:
            return f"leaf {number} was not shown"
        if any(not 0 <= each <= _MASK for each in opening.leaves):
            return f"the block of leaf {number} is none"
        if _root(opening) != proof.root:
            return f"leaf {number} is not what it had committed to"
        if leaf(seed, number, steps=challenge.steps) != opening.leaves[number % BLOCK_LEAVES]:
            return f"leaf {number} is wrong"
    return None


def _root(opening: Opening) -> str:
    node, at = block_hash(opening.leaves), opening.block
    for beside in opening.path:
        if beside:
            try:
                other = bytes.fromhex(beside)
            except ValueError:
                return ""
            node = _parent(other, node) if at % 2 else _parent(node, other)
        at //= 2
    return node.hex()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
