"""Challenges: nodes show, at moments that they can't foresee, that their devices are several and at work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from perak.app.effects import Effect, MarketChanged
from perak.app.ports import Transaction
from perak.app.records import NodeRecord, OpenChallenge, Provable
from perak.app.refusals import tell_refusal
from perak.domain.hardware.challenge import (
    BLOCK_LEAVES,
    LANES,
    LEAVES_MOST,
    STEPS,
    Answer,
    Challenge,
    allowed,
)
from perak.domain.hardware.standing import Standing
from perak.domain.plausible import shown

WORK_SECONDS = 10.0
"""Of the slowest device alone: long beside OVERHEAD_SECONDS, short beside a lease."""
OVERHEAD_SECONDS = 5.0
"""For the network, and a process that loads OpenCL and translates its kernels: 2 s on a slow machine."""
UNANSWERED_SECONDS = 300.0
"""After so long nobody waits any more; a node that was cut off meanwhile is asked again some time."""


async def ask(tx: Transaction, provable: Provable, *, id: str, nonce: str, now: datetime) -> Challenge | None:
    """Note a challenge for a node's devices, all at once; None where one was never measured alone."""
    rates = [rate for rate in provable.steps_per_second if rate]
    if len(rates) < len(provable.devices):
        return None
    wanted = int(min(rates) * WORK_SECONDS / (LANES * STEPS)) // BLOCK_LEAVES * BLOCK_LEAVES
    challenge = Challenge(
        id=id,
        nonce=nonce,
        devices=provable.devices,
        leaves=max(BLOCK_LEAVES, min(LEAVES_MOST, wanted)),
    )
    limit = allowed(challenge, provable.steps_per_second, overhead_seconds=OVERHEAD_SECONDS)
    await tx.challenges.ask(challenge, node=provable.node, allowed_seconds=limit, now=now)
    return challenge


async def take_answer(tx: Transaction, *, node: NodeRecord, answer: Answer, now: datetime) -> list[Effect]:
    """Keep what a node answers, with the exchange's own time; it is judged outside of any transaction."""
    await tx.challenges.answer(answer, node=node.id, now=now)
    return []


async def settle_challenge(
    tx: Transaction, found: OpenChallenge, *, problems: Sequence[str], now: datetime
) -> list[Effect]:
    """Write down what came of it. Devices whose proof was wrong or late are rejected; the owner is told.

    No answer at all, or one that says why there is none, proves nothing either way: the owner is told.
    """
    silent = found.elapsed_seconds is None or bool(found.answer.problem)
    unmet = bool(problems) and not silent
    node = await tx.nodes.lock(found.node)
    judged = await tx.challenges.judge(found.challenge.id, problems=problems, unmet=unmet, now=now)
    if not judged or not problems or node is None:
        return []
    detail = shown(f"the challenge of {', '.join(found.challenge.devices)}: {'; '.join(problems)}")[:500]
    await tell_refusal(tx, node=node, subject="device", detail=detail, now=now)
    if not unmet:
        return []
    standing = Standing(reasons=tuple(f"rejected because {each}" for each in problems))
    for device in found.challenge.devices:
        await tx.devices.set_standing(device, node=found.node, standing=standing, rejected=True, now=now)
    return [MarketChanged()]
