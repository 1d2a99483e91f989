"""A challenge over a real session: asked by one replica, answered by a node, judged by whoever comes by."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from server_world import OFFER, PATIENCE_SECONDS, Running, ScriptedNode, now_ms

from perak.domain.hardware import challenge as c
from perak.domain.hardware import inspection as names
from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import Check
from perak.domain.offer import Device
from perak.domain.report import Inspected, OfferPosted, Proved
from perak.server.challenging import ask_round, judge_one
from perak.wire import session as wire
from unit.domain.hardware.inspections import V100, inspection
from unit.domain.hardware.proofs import leaves_of, proof

CARDS = tuple(
    Device(index=number, kind="nvidia", model=V100, uuid=f"GPU-{number}", memory_bytes=16 * 2**30)
    for number in (1, 2)
)
RATE = 16 * c.LANES * c.STEPS / 10.0 / 1e9
"""So slow that one block of leaves is ten seconds' work."""


async def with_cards(node: ScriptedNode) -> None:
    await node.report(OfferPosted(offer=replace(OFFER, devices=CARDS, price_gpu=180_000)))
    for device in CARDS:
        found = inspection()
        rate = Check(name=names.PROOF_RATE, status="passed", value=RATE, unit="Gstep/s")
        await node.report(
            Inspected(
                inspection=replace(
                    found,
                    identity=replace(found.identity, uuid=device.uuid),
                    checks=names.complete([*(each for each in found.checks if each.name != rate.name), rate]),
                    started_at=now_ms() - 1_900_000,
                    ended_at=now_ms(),
                )
            )
        )


async def asked(exchange: Running, node: ScriptedNode) -> Challenge:
    before = len(node.frames)
    assert await ask_round(exchange.services, chance=1.0) == 1
    frame = await node.until(
        lambda: next((each for each in node.frames[before:] if isinstance(each, wire.Prove)), None)
    )
    challenge: Challenge = frame.challenge
    return challenge


async def judged(exchange: Running, challenge: Challenge) -> dict[str, Any]:
    """What came of it; another judge may have been faster than we."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await judge_one(exchange.services)
            async with exchange.services.db.connection() as connection:
                row = await connection.fetchrow(
                    "select * from challenge where id = $1 and judged_at is not null", challenge.id
                )
            if row is not None:
                return dict(row)
            await asyncio.sleep(0.05)


async def test_a_node_is_asked_answers_and_is_judged_by_the_exchanges_own_work(
    exchange: Running, node: ScriptedNode
) -> None:
    await with_cards(node)
    challenge = await asked(exchange, node)
    assert challenge.devices == ("GPU-1", "GPU-2")
    for device in challenge.devices:
        one = proof(challenge, device, leaves_of(challenge, device))
        await node.report(Proved(answer=Answer(challenge=challenge.id, proofs=(one,))))
    found = await judged(exchange, challenge)
    # How long a busy machine took says nothing here: only that every leaf was right.
    assert [each for each in found["problems"] if "fewer than they say" not in each] == []


async def test_a_node_that_made_its_answer_up_gets_no_grade(exchange: Running, node: ScriptedNode) -> None:
    await with_cards(node)
    challenge = await asked(exchange, node)
    for device in challenge.devices:
        one = proof(challenge, device, list(range(challenge.leaves)))
        await node.report(Proved(answer=Answer(challenge=challenge.id, proofs=(one,))))
    found = await judged(exchange, challenge)
    assert found["unmet"]
    async with exchange.services.db.connection() as connection:
        rejected = await connection.fetch("select device from standing where rejected order by device")
    assert [row["device"] for row in rejected] == ["GPU-1", "GPU-2"]


async def test_no_two_challenges_have_one_nonce(exchange: Running, node: ScriptedNode) -> None:
    await with_cards(node)
    first, second = await asked(exchange, node), await asked(exchange, node)
    assert first.nonce != second.nonce
