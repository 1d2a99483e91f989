"""Passports of a running exchange: a node inspects, the owner reads, a buyer verifies offline."""

from __future__ import annotations

import json
from dataclasses import replace

from server_world import OFFER, Running, ScriptedNode, now_ms

from perak.domain.hardware import inspection as names
from perak.domain.hardware.wipe import WipeRecord
from perak.domain.offer import Device
from perak.domain.report import Inspected, OfferPosted, Wiped
from perak.wire.passports import passport_file, verify_passport
from unit.domain.hardware.inspections import V100, inspection

CARD = Device(
    index=0, kind="nvidia", model=V100, uuid="GPU-1", memory_bytes=16 * 2**30, compute_capability="7.0"
)


async def test_what_a_node_signed_a_buyer_verifies_offline(exchange: Running, node: ScriptedNode) -> None:
    at = now_ms() - 10_000_000
    wipe = WipeRecord(
        device="GPU-1", lease="lease-1", status="passed", memory_bytes=2**30, memory_total_bytes=2**34,
        local_bytes=1, leftover_words=0, started_at=now_ms() - 2000, ended_at=now_ms() - 1000,
    )  # fmt: skip
    await node.report(
        OfferPosted(offer=replace(OFFER, devices=(CARD,), price_gpu=1)),
        Inspected(inspection=inspection(at=at)),
        Wiped(record=wipe),
        Inspected(inspection=inspection({names.SOAK_POWER: 0.84}, at=at + 2_000_000)),
    )
    (offer,) = (await exchange.client.get("/v1/offers")).json()["items"]
    assert offer["devices"][0]["grade"] == "B (provisional)"
    (device,) = (await exchange.client.get(f"/v1/nodes/{node.id}/devices")).json()["devices"]
    assert any("84%" in reason for reason in device["reasons"])
    own = (await exchange.client.get("/v1/devices/GPU-1/passport")).json()

    async with exchange.client_with("") as buyer:
        buyer.headers.pop("authorization", None)
        answer = await buyer.get(f"/v1/passports/{device['passport']}")
        assert (await buyer.get("/v1/devices/GPU-1/passport")).status_code == 401
        assert (await buyer.get(f"/v1/passports/sha256:{'0' * 64}")).status_code == 404
    given = answer.json()
    assert given == own
    text = passport_file(given["device"], given["entries"], given["evidence"])
    authority = verify_passport(text).root_fingerprint
    found = verify_passport(text, trusted_fingerprint=authority)
    assert [(each.name, each.passed) for each in found.checks] == [
        ("signatures", True),
        ("authority", True),
        ("chain", True),
        ("evidence", True),
    ]
    assert found.entries[-1].digest == device["passport"]
    assert [each.event["kind"] for each in found.entries] == ["inspected", "wiped", "inspected"]
    assert len(found.inspections) == 2

    changed = json.loads(text)
    changed["entries"] = changed["entries"][1:]
    assert not verify_passport(json.dumps(changed)).valid
