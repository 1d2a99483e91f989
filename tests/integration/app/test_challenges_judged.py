"""The exchange challenges a node's devices, times the answer by its own clock, and makes part of it anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from integration.app.conftest import World, ask
from perak.app.challenges import UNANSWERED_SECONDS, settle_challenge
from perak.app.challenges import ask as ask_challenge
from perak.app.records import OpenChallenge
from perak.domain.hardware import challenge as c
from perak.domain.hardware import inspection as names
from perak.domain.hardware.challenge import Answer, Challenge
from perak.domain.hardware.inspection import Check
from perak.domain.offer import Device, Offer
from perak.domain.report import Inspected, OfferPosted, Proved
from unit.domain.hardware.inspections import V100, inspection
from unit.domain.hardware.proofs import leaves_of, proof

GIB = 2**30
CARDS = tuple(
    Device(index=number, kind="nvidia", model=V100, uuid=f"GPU-{number}", memory_bytes=16 * GIB)
    for number in (1, 2)
)
RATE = 16 * c.LANES * c.STEPS / 10.0 / 1e9
"""So slow that one block of leaves takes it ten seconds."""


async def inspected(world: World, device: Device) -> None:
    found = inspection()
    rate = Check(name=names.PROOF_RATE, status="passed", value=RATE, unit="Gstep/s")
    await world.report(
        Inspected(
            inspection=replace(
                found,
                identity=replace(found.identity, uuid=device.uuid),
                checks=names.complete([*(each for each in found.checks if each.name != rate.name), rate]),
                started_at=world.now_ms - 1_900_000,
                ended_at=world.now_ms,
            )
        )
    )


@pytest.fixture
async def asked(world: World) -> Challenge:
    await world.report(OfferPosted(offer=ask(devices=CARDS, price_gpu=180_000)))
    for device in CARDS:
        await inspected(world, device)
    async with world.db.transaction() as tx:
        (provable,) = await tx.challenges.provable([world.node])
        challenge = await ask_challenge(tx, provable, id="x1", nonce="ab" * 16, now=world.now)
    assert challenge is not None
    assert challenge.devices == ("GPU-1", "GPU-2")
    assert challenge.leaves == 16
    return challenge


async def answer(world: World, challenge: Challenge, *, done: float = 1.0, after: float = 1.0) -> None:
    world.now += timedelta(seconds=after)
    for device in challenge.devices:
        one = proof(challenge, device, leaves_of(challenge, device, done=done))
        await world.report(Proved(answer=Answer(challenge=challenge.id, proofs=(one,))))


async def judged(world: World) -> tuple[OpenChallenge, tuple[str, ...]]:
    async with world.db.transaction() as tx:
        found = await tx.challenges.open(asked_before=world.now - timedelta(seconds=UNANSWERED_SECONDS))
    assert found is not None
    problems: tuple[str, ...] = ("it was not answered",)
    if found.elapsed_seconds is not None:
        problems = c.check(
            found.challenge,
            found.answer,
            elapsed_seconds=found.elapsed_seconds,
            allowed_seconds=found.allowed_seconds,
        )
    async with world.db.transaction() as tx:
        await settle_challenge(tx, found, problems=problems, now=world.now)
    return found, problems


async def offer_of(world: World) -> Offer:
    async with world.db.transaction() as tx:
        found = await tx.offers.of_node(world.node)
    assert found is not None
    return found


async def rejected(world: World) -> set[str]:
    async with world.db.connection() as connection:
        rows = await connection.fetch("select device from standing where rejected")
    return {row["device"] for row in rows}


async def test_an_honest_answer_in_time_changes_nothing(world: World, asked: Challenge) -> None:
    before = (await offer_of(world)).standings
    await answer(world, asked)
    found, problems = await judged(world)
    assert problems == ()
    assert found.elapsed_seconds == pytest.approx(1.0)
    assert (await offer_of(world)).standings == before
    async with world.db.transaction() as tx:
        assert await tx.challenges.open(asked_before=world.now) is None, "it is judged once"


async def test_half_of_the_work_rejects_the_devices_until_a_challenge_is_met(
    world: World, asked: Challenge
) -> None:
    await answer(world, asked, done=0.5)
    _, problems = await judged(world)
    assert any("is wrong" in each for each in problems)
    assert await rejected(world) == {"GPU-1", "GPU-2"}
    await inspected(world, CARDS[0])
    assert await rejected(world) == {"GPU-1", "GPU-2"}, "no inspection makes up for it"


async def test_a_late_answer_says_that_they_are_fewer(world: World, asked: Challenge) -> None:
    await answer(world, asked, after=21.0)
    _, problems = await judged(world)
    assert any("fewer than they say" in each for each in problems)
    assert await rejected(world) == {"GPU-1", "GPU-2"}


async def test_silence_proves_nothing_and_is_told_to_the_owner(world: World, asked: Challenge) -> None:
    world.now += timedelta(seconds=UNANSWERED_SECONDS + 1)
    _, problems = await judged(world)
    assert problems == ("it was not answered",)
    assert await rejected(world) == set()


async def test_an_answer_to_nothing_or_of_another_node_is_passed_over(world: World, asked: Challenge) -> None:
    one = proof(asked, "GPU-1", leaves_of(asked, "GPU-1"))
    await world.report(Proved(answer=Answer(challenge="another", proofs=(one,))))
    async with world.db.transaction() as tx:
        assert await tx.challenges.open(asked_before=world.now - timedelta(days=1)) is None


async def test_a_node_without_measured_devices_is_not_asked(world: World) -> None:
    await world.report(OfferPosted(offer=ask(devices=CARDS, price_gpu=180_000)))
    async with world.db.transaction() as tx:
        (provable,) = await tx.challenges.provable([world.node])
        assert await ask_challenge(tx, provable, id="x", nonce="0" * 32, now=world.now) is None
