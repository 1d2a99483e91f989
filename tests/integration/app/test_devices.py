"""What the exchange makes of inspections and wipes: grades, standings on offers, and passports."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from integration.app.conftest import World, ask
from integration.app.test_way_of_a_job import exited, started
from perak.adapters.db.views.market import get_offer
from perak.app.incidents import rate_again
from perak.domain.hardware import inspection as names
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.passport import owner_pseudonym, wipe_digest
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.job import JobSpec, Limits, Resources
from perak.domain.offer import Device, Offer
from perak.domain.report import Faulted, Health, Inspected, OfferPosted, Sensor, Wiped
from unit.domain.hardware.inspections import V100, failed, inspection

GIB = 2**30
CARDS = tuple(
    Device(
        index=i, kind="nvidia", model=V100, uuid=f"GPU-{i}", memory_bytes=16 * GIB, compute_capability="7.0"
    )
    for i in (1, 2)
)


@pytest.fixture
async def fleet(world: World) -> World:
    await world.report(OfferPosted(offer=ask(devices=CARDS, price_gpu=180_000)))
    return world


def seen(world: World, changes: Any = None, **fields: Any) -> DeviceInspection:
    """A healthy card's inspection that ended just now."""
    found = inspection(changes, **fields)
    return replace(found, started_at=world.now_ms - 1_900_000, ended_at=world.now_ms)


async def offer_of(world: World) -> Offer:
    async with world.db.transaction() as tx:
        found = await tx.offers.of_node(world.node)
    assert found is not None
    return found


async def entries(world: World, device: str = "GPU-1") -> list[dict[str, Any]]:
    async with world.db.connection() as connection:
        rows = await connection.fetch(
            "select digest, credential from passport_entry where device = $1 order by seq", device
        )
    return [{"digest": row["digest"], **json.loads(row["credential"])} for row in rows]


async def test_an_inspection_gives_the_device_a_standing_on_the_offer(fleet: World) -> None:
    version = (await offer_of(fleet)).version
    await fleet.report(Inspected(inspection=seen(fleet)))
    offer = await offer_of(fleet)
    standing = offer.standing_of(CARDS[0])
    assert (standing.label, standing.bandwidth_gbs, standing.fp32_tflops) == ("A (provisional)", 750.0, 14.2)
    assert standing.failures_per_hour == pytest.approx(1 / 24, rel=0.01), "a new host leaves once a day"
    assert standing.passport == (await entries(fleet))[0]["digest"]
    assert offer.version == version + 1
    assert offer.standing_of(CARDS[1]).grade is None
    await fleet.report(OfferPosted(offer=ask(devices=CARDS, price_gpu=170_000)))
    assert (await offer_of(fleet)).standing_of(CARDS[0]) == standing, "a new offer keeps what is known"


async def test_one_inspected_before_it_was_offered_has_its_standing_when_it_is(world: World) -> None:
    await world.report(Inspected(inspection=seen(world)))
    await world.report(OfferPosted(offer=ask(devices=CARDS, price_gpu=180_000)))
    assert (await offer_of(world)).standing_of(CARDS[0]).grade == "A"


async def test_a_rejected_device_is_left_out_with_the_reason_and_its_owner_is_told(fleet: World) -> None:
    bad = seen(fleet, {names.MEMORY_RANDOM: failed(names.MEMORY_RANDOM, "0x2a: mask 0x1")})
    await fleet.report(Inspected(inspection=bad))
    offer = await offer_of(fleet)
    assert [d.uuid for d in offer.ask.devices] == [d.uuid for d in offer.free_devices] == ["GPU-2"]
    assert "mask 0x1" in offer.ask.left_out["GPU-1"]
    notice = await fleet.one("select notice from node where id = $1", fleet.node)
    assert "GPU-1" in notice["notice"]
    async with fleet.db.connection() as connection:
        shown = await get_offer(connection, offer.id)
    assert shown is not None
    assert [d.uuid for d in shown.devices] == ["GPU-2"]
    fleet.wait(3600)
    await fleet.report(Inspected(inspection=seen(fleet)))
    assert len((await offer_of(fleet)).ask.devices) == 2, (
        "as thorough an inspection that passed brings it back"
    )


async def test_a_job_that_wants_a_grade_gets_a_card_of_that_grade(fleet: World) -> None:
    await fleet.fund(10_000_000)
    await fleet.report(Inspected(inspection=seen(fleet, uuid="GPU-2")))
    await fleet.report(Inspected(inspection=seen(fleet, {names.SOAK_POWER: 0.77})))
    spec = JobSpec(
        name="graded", run="true", resources=Resources(gpu_count=1, cpu_milli=100),
        limits=Limits(max_duration_seconds=600), min_grade="B",
    )  # fmt: skip
    job = await fleet.submit(spec)
    await fleet.clear()
    assert (await fleet.lease(job))["devices"] == ["GPU-2"]
    second = await fleet.submit(spec)
    await fleet.clear()
    assert (await fleet.job(second))["state"] == "queued", "the other card is a C"


async def test_the_same_inspection_again_changes_nothing(fleet: World) -> None:
    found = seen(fleet)
    await fleet.report(Inspected(inspection=found))
    await fleet.report(Inspected(inspection=found))
    assert len(await entries(fleet)) == 1


async def test_an_inspection_that_comes_months_late_is_taken_all_the_same(fleet: World) -> None:
    await fleet.report(Inspected(inspection=inspection(at=fleet.now_ms - 200 * 86_400_000)))
    assert len(await entries(fleet)) == 1
    assert (await offer_of(fleet)).standing_of(CARDS[0]).grade == "A"


async def test_a_grade_ends_where_nobody_inspects_again(fleet: World) -> None:
    await fleet.report(Inspected(inspection=seen(fleet)))
    for days, grade in ((89, "A"), (2, None)):
        fleet.wait(days * 86_400)
        async with fleet.db.transaction() as tx:
            await tx.devices.expire(now=fleet.now, limit=10)
        assert (await offer_of(fleet)).standing_of(CARDS[0]).grade == grade
    assert "90 days" in (await offer_of(fleet)).standing_of(CARDS[0]).reasons[0]
    await fleet.report(Inspected(inspection=seen(fleet)))
    assert (await offer_of(fleet)).standing_of(CARDS[0]).grade == "A"


async def test_entries_form_a_chain_and_wipes_are_in_it(fleet: World) -> None:
    await fleet.report(Inspected(inspection=seen(fleet)))
    fleet.wait(60)
    wipe = WipeRecord(
        device="GPU-1", lease="lease-1", status="passed", memory_bytes=15 * GIB, memory_total_bytes=16 * GIB,
        local_bytes=49_152, leftover_words=0, started_at=fleet.now_ms - 1000, ended_at=fleet.now_ms,
    )  # fmt: skip
    await fleet.report(Wiped(record=wipe))
    fleet.wait(60)
    await fleet.report(Inspected(inspection=seen(fleet)))
    first, second, third = await entries(fleet)
    assert [each["perak"]["seq"] for each in (first, second, third)] == [1, 2, 3]
    assert first["perak"]["previous"] is None
    assert (second["perak"]["previous"], third["perak"]["previous"]) == (first["digest"], second["digest"])
    event = second["credentialSubject"]["traceabilityInformation"][0]
    assert (event["kind"], event["method"], event["evidence"]) == ("wiped", "Clear", wipe_digest(wipe))
    assert third["credentialSubject"]["use"]["wipes"] == 1
    subject = first["credentialSubject"]
    assert subject["conformityClaim"][0]["grade"] == "A"
    assert {each["software"] for each in subject["product"]["softwareLife"]} >= {"CUDA", "PyTorch", "JAX"}
    row = await fleet.one("select project_id from node where id = $1", fleet.node)
    assert subject["owner"] == owner_pseudonym(row["project_id"], device="GPU-1")
    assert row["project_id"] not in json.dumps(first)


async def test_a_wipe_that_failed_is_told_to_the_owner(fleet: World) -> None:
    wipe = WipeRecord(
        device="GPU-1", lease="l", status="failed", reason="12 words were left", started_at=1, ended_at=2
    )
    await fleet.report(Wiped(record=wipe))
    row = await fleet.one("select notice from node where id = $1", fleet.node)
    assert "12 words were left" in row["notice"]


async def test_nobody_changes_a_passport(fleet: World) -> None:
    await fleet.report(Inspected(inspection=seen(fleet)))
    for table in ("passport_entry", "inspection", "wipe"):
        for statement in (f"delete from {table}", f"update {table} set digest = 'x'"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await fleet.one(statement)


async def test_a_uuid_that_another_owner_offers_gets_no_grade_and_no_passport(fleet: World) -> None:
    async with fleet.db.transaction() as tx:
        await tx.connection.execute(
            """insert into project (id, name, created_at) values ('project_other', 'other', $1)""", fleet.now
        )
        await tx.nodes.insert(
            id="node-b", project="project_other", name="b", sign_key=b"b" * 32, seal_key=b"b" * 32,
            certificate_chain="", certificate_expires_at=fleet.now, now=fleet.now,
        )  # fmt: skip
        await tx.nodes.set_state("node-b", state="online")
        theirs = await tx.nodes.get("node-b")
        assert theirs is not None
        await tx.offers.post(
            id="offer-b", node=theirs, ask=ask(devices=CARDS[:1], price_gpu=1), now=fleet.now
        )
    await fleet.report(Inspected(inspection=seen(fleet)))
    offer = await offer_of(fleet)
    assert offer.standing_of(CARDS[0]).grade is None
    assert "a UUID belongs to one device" in offer.standing_of(CARDS[0]).reasons[0]
    assert await entries(fleet) == []


async def test_five_cards_of_two_owners_make_a_reference(fleet: World) -> None:
    async with fleet.db.transaction() as tx:
        await tx.connection.execute(
            "insert into project (id, name, created_at) values ('project_other', 'other', $1)", fleet.now
        )
        await tx.connection.executemany(
            """insert into standing (node_id, device, project_id, model, throughputs, rejected, document,
                first_at, updated_at)
            values ($1, $2, 'project_other', 'V100 SXM2 16GB', $3, false, '{"grade": null}', $4, $4)""",
            [
                (
                    fleet.node,
                    f"GPU-x{i}",
                    {names.FP32: 15.0 + i / 10, names.COPY: 780.0},
                    fleet.now - timedelta(days=365),
                )
                for i in range(5)
            ],
        )
    await fleet.report(Inspected(inspection=seen(fleet)))
    standing = (await offer_of(fleet)).standing_of(CARDS[0])
    assert not standing.provisional
    assert standing.grade == "B", "14.2 of 15.15 TFLOP/s"
    entry = (await entries(fleet))[0]["credentialSubject"]
    assert entry["modelComparison"]["cards"] == 6
    assert len(entry["modelComparison"]["deciles"][names.COPY]) == 11


async def test_an_xid_and_heat_are_incidents_in_the_passport_and_the_rate_is_counted_again(
    fleet: World,
) -> None:
    await fleet.fund(10_000_000)
    await fleet.report(Inspected(inspection=seen(fleet)))
    rate = (await offer_of(fleet)).standing_of(CARDS[0]).failures_per_hour
    assert await rated_again(fleet) == 0, "nothing has happened"
    await fleet.submit(
        JobSpec(name="two", run="true", resources=Resources(gpu_count=2, cpu_milli=100), limits=Limits())
    )
    await fleet.clear()
    hot = Sensor(id="GPU-1", name="GPU 1 V100", celsius=91.0, hot_celsius=90.0, limit_source="NVML")
    for _ in range(2):  # The same within the hour is written once.
        fleet.wait(60)
        await fleet.report(Health(sensors=(hot,)), Faulted(device="GPU-1", xid=79))
        await fleet.report(Health(sensors=(replace(hot, celsius=60.0),)))
    await fleet.report(Faulted(device="GPU-1", xid=13), Faulted(device="GPU-unknown", xid=79))
    found = await entries(fleet)
    events = [each["credentialSubject"]["traceabilityInformation"][0] for each in found]
    assert [
        (each["kind"], each.get("incident"), each.get("code"), each.get("leased")) for each in events
    ] == [
        ("inspected", None, None, None),
        ("incident", "thermal", None, True),
        ("incident", "xid", 79, True),
    ]
    assert "91 °C" in events[1]["detail"]
    assert [each["perak"]["previous"] for each in found[1:]] == [each["digest"] for each in found[:-1]]
    notice = await fleet.one("select notice from node where id = $1", fleet.node)
    assert "Xid 79: it fell off the bus" in notice["notice"]
    assert await rated_again(fleet) == 1
    again = (await offer_of(fleet)).standing_of(CARDS[0])
    assert rate is not None
    assert again.failures_per_hour is not None
    assert again.grade == "A"
    assert again.failures_per_hour != rate
    assert await rated_again(fleet) == 0


async def test_a_lost_run_makes_a_card_more_likely_to_fail_before_it_is_inspected_again(fleet: World) -> None:
    await fleet.report(Inspected(inspection=seen(fleet)))
    before = (await offer_of(fleet)).standing_of(CARDS[0]).failures_per_hour
    await fleet.fund(10_000_000)
    spec = JobSpec(name="lost", run="true", resources=Resources(gpu_count=1, cpu_milli=100), limits=Limits())
    job = await fleet.submit(spec)
    await fleet.clear()
    lease = await fleet.lease(job)
    fleet.wait(60)
    await fleet.one(
        "update run set state = 'exited', cause = 'node_lost', ended_at = $2 where lease_id = $1 returning 1",
        lease["id"],
        fleet.now,
    )
    assert await rated_again(fleet) == 1
    after = (await offer_of(fleet)).standing_of(CARDS[0]).failures_per_hour
    assert before is not None
    assert after is not None
    assert after > 1.9 * before, "two departures in a day, where one was supposed"


async def test_a_card_that_fails_in_use_costs_no_later_second_and_is_one_failure_however_often_it_is_told(
    fleet: World,
) -> None:
    await fleet.fund(10_000_000)
    await fleet.report(Inspected(inspection=seen(fleet)))
    spec = JobSpec(name="one", run="true", resources=Resources(gpu_count=2, cpu_milli=100), limits=Limits())
    job = await fleet.submit(spec)
    await fleet.clear()
    lease = await fleet.lease(job)
    begin = fleet.now_ms
    await fleet.report(started(lease, begin))
    fleet.wait(100)
    heard = fleet.now_ms
    await fleet.report(*(Faulted(device="GPU-1", xid=xid) for xid in (48, 63, 79)))
    fleet.wait(10)
    lost = Faulted(device="GPU-1", kind="lost")
    end = exited(lease, begin=begin, end=heard, cause="device_fault", exit_code=None, detail="Xid 79")
    await fleet.report(Faulted(device="GPU-1", kind="uncorrected"), lost, end)
    events = [each["credentialSubject"]["traceabilityInformation"][0] for each in await entries(fleet)]
    assert [each.get("incident") for each in events] == [None, "xid", "xid", "xid", "uncorrected", "lost"]
    after = await fleet.job(job)
    assert (after["state"], after["avoid"]) == ("queued", [fleet.node])
    billed = (await fleet.lease(job))["cost"]
    assert billed == 180_000 * 2 * 100 // 3600, "two cards for the seconds until the fault was heard"
    assert await failures(fleet) == 1

    fleet.wait(2 * 3600)
    await fleet.report(lost)
    assert await failures(fleet) == 2, "hours later it is another one"
    assert await rated_again(fleet) == 1


async def failures(world: World) -> float:
    """Of the cards' class."""
    async with world.db.transaction() as tx:
        row = await world.one("select project_id from node where id = $1", world.node)
        found = await tx.devices.history(
            "GPU-1", node=world.node, project=row["project_id"], model="V100 SXM2 16GB", now=world.now
        )
    return found.class_failures


async def rated_again(world: World) -> int:
    async with world.db.transaction() as tx:
        return await rate_again(tx, now=world.now, limit=10)
