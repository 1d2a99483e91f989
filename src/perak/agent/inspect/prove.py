"""The device's side of a challenge (`perak.domain.hardware.challenge`): the work, and the proof of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from perak.agent.inspect.opencl import Session, Words
from perak.domain.hardware import challenge as c
from perak.domain.hardware.challenge import BLOCK_LEAVES, Challenge, DeviceProof, Opening

LAUNCH_SECONDS = 0.2
"""Of one launch: below any watchdog's patience."""
TRY_LEAVES = 4096
ALONE_SECONDS = 0.4
"""How long each device works alone and then beside the others, to see whether it is slowed."""
NONCE = "0" * 32


def prove(session: Session, challenge: Challenge, device: str) -> DeviceProof:
    """Do the work and commit to it."""
    began = time.perf_counter()
    leaves = work(session, challenge, device)
    data = leaves.astype("<u4").tobytes()
    size = BLOCK_LEAVES * 4
    levels = c.tree([c.block_hash_of(data[at : at + size]) for at in range(0, len(data), size)])
    root = levels[-1][0].hex()
    numbers = c.opened(challenge.nonce, device, root, leaves=challenge.leaves)
    openings = []
    for block in sorted({number // BLOCK_LEAVES for number in numbers}):
        there = leaves[block * BLOCK_LEAVES : (block + 1) * BLOCK_LEAVES]
        openings.append(
            Opening(block=block, leaves=tuple(int(each) for each in there), path=c.path(levels, block))
        )
    seconds = time.perf_counter() - began
    return DeviceProof(device=device, root=root, openings=tuple(openings), seconds=seconds)


def work(session: Session, challenge: Challenge, device: str) -> Words:
    """All leaves of one device, in launches of bounded length."""
    seed = c.seed_words(challenge.nonce, device)
    out = session.buffer(challenge.leaves * 4)
    leaves = np.empty(challenge.leaves, np.uint32)
    done, size = 0, min(TRY_LEAVES if not session.shown.is_cpu else 64, challenge.leaves)
    while done < challenge.leaves:
        size = min(size, challenge.leaves - done)
        began = time.perf_counter()
        session.run("prove", (size,), session.group(size), out, done, *seed, challenge.steps)
        session.copy(leaves[done : done + size], out)
        seconds = time.perf_counter() - began
        done += size
        size = max(64, min(4 * size, int(size * LAUNCH_SECONDS / max(seconds, 1e-6))) // 64 * 64)
    return leaves


def rate(session: Session, *, seconds: float = ALONE_SECONDS) -> float:
    """Steps a second, alone."""
    return _rate(session, seconds)


def slowdown(sessions: Sequence[Session], *, seconds: float = ALONE_SECONDS) -> list[float]:
    """For each device, its speed alone over its speed beside all the others; one for each that is its own."""
    alone = [_rate(session, seconds) for session in sessions]
    with ThreadPoolExecutor(len(sessions)) as pool:
        together = list(pool.map(lambda session: _rate(session, 2 * seconds), sessions))
    return [one / other for one, other in zip(alone, together, strict=True)]


def _rate(session: Session, seconds: float) -> float:
    leaves = 64 if session.shown.is_cpu else TRY_LEAVES
    seed = c.seed_words(NONCE, "rate")
    out = session.buffer(c.LEAVES_MOST // 16 * 4)
    steps = 256

    def once(count: int) -> float:
        began = time.perf_counter()
        session.run("prove", (count,), session.group(count), out, 0, *seed, steps)
        session.finish()
        return time.perf_counter() - began

    once(leaves)
    while (took := once(leaves)) < seconds / 8 and leaves < c.LEAVES_MOST // 16:
        leaves *= 2
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not done:
        took = once(leaves)
        done += leaves
    del took
    return done * c.LANES * steps / passed
