"""Gives challenges to the nodes in session here, at random moments, and judges the answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import timedelta

from perak.adapters.db.database import PgTransaction
from perak.app.challenges import UNANSWERED_SECONDS, ask, settle_challenge
from perak.app.effects import Effect
from perak.app.records import OpenChallenge
from perak.domain.hardware.challenge import check
from perak.server import clock
from perak.server.logging import get_logger
from perak.server.services import Services

LOOK_SECONDS = 5.0
"""An answer is judged this soon."""
EVERY_SECONDS = 86_400.0
"""A node is asked once a day on average: a challenge takes ten seconds of all its devices."""
ASKED_AT_ONCE_MAX = 8
"""In one round of one replica: judging takes a third of a second a device."""

_log = get_logger(__name__)
_random = secrets.SystemRandom()


async def challenge_devices(services: Services) -> None:
    """For ever: ask some, judge what was answered."""
    while True:
        await ask_round(services, chance=LOOK_SECONDS / EVERY_SECONDS)
        while await judge_one(services):
            pass
        await asyncio.sleep(LOOK_SECONDS * _random.uniform(0.5, 1.5))


async def ask_round(services: Services, *, chance: float) -> int:
    """Ask each node in session here with this chance, if its devices are free; how many were asked."""
    drawn = [node for node in services.orders.nodes() if _random.random() < chance]
    if not drawn:
        return 0
    async with services.db.transaction() as tx:
        provable = await tx.challenges.provable(drawn[:ASKED_AT_ONCE_MAX])
        asked = [
            (each.node, challenge)
            for each in provable
            if (
                challenge := await ask(
                    tx, each, id=secrets.token_hex(12), nonce=secrets.token_hex(16), now=clock.now()
                )
            )
        ]
    for node, challenge in asked:
        services.orders.prove(node, challenge)
    return len(asked)


async def judge_one(services: Services) -> bool:
    """Judge one answer, or one that never came; whether there was any."""
    async with services.db.transaction() as tx:
        before = clock.now() - timedelta(seconds=UNANSWERED_SECONDS)
        found = await tx.challenges.open(asked_before=before)
    if found is None:
        return False
    problems = await asyncio.to_thread(_problems, found)
    if problems:
        _log.warning("a challenge was not met", node=found.node, problems=problems)
    await services.commit(lambda tx: _settle(tx, found, problems))
    return True


async def _settle(
    tx: PgTransaction, found: OpenChallenge, problems: Sequence[str]
) -> tuple[None, list[Effect]]:
    return None, await settle_challenge(tx, found, problems=problems, now=clock.now())


def _problems(found: OpenChallenge) -> tuple[str, ...]:
    if found.elapsed_seconds is None:
        return ("it was not answered",)
    return check(
        found.challenge,
        found.answer,
        elapsed_seconds=found.elapsed_seconds,
        allowed_seconds=found.allowed_seconds,
    )
