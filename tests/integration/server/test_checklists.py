"""The escape checklist: signed by the node, kept by its digest, named by offer, lease and receipt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from server_world import OFFER, Running, ScriptedNode, exited, now_ms, started

from perak.domain.checklist import CHECKS, Checklist, CheckResult, Outcome, digest
from perak.domain.errors import InvalidInput
from perak.domain.offer import SandboxTier
from perak.domain.report import ChecklistPosted, OfferPosted
from perak.wire.checklists import verify_checklist
from perak.wire.receipts import verify_receipt


def checklist(**outcomes: Outcome) -> Checklist:
    """All passed, but for those named (``_`` for ``-``)."""
    given = {name.replace("_", "-"): outcome for name, outcome in outcomes.items()}
    return Checklist(
        at=now_ms(),
        agent_version="0.1",
        kernel="6.1",
        tier="bubblewrap",
        runtime="bubblewrap 0.8.0",
        results=tuple(
            CheckResult(name=check.name, outcome=given.get(check.name, "passed")) for check in CHECKS
        ),
    )


def offer_with(named: str) -> OfferPosted:
    return OfferPosted(offer=replace(OFFER, tiers=(SandboxTier(tier="bubblewrap", checklist=named),)))


async def _offered(exchange: Running) -> str | None:
    (offer,) = (await exchange.client.get("/v1/offers")).json()["items"]
    found: str | None = offer["tiers"][0]["checklist"]
    return found


async def test_offer_lease_and_receipt_name_it_and_anybody_gets_it(
    exchange: Running, node: ScriptedNode
) -> None:
    made = checklist(device_memory_leftovers="not_run")
    await node.report(ChecklistPosted(checklist=made), offer_with(digest(made)))
    assert await _offered(exchange) == digest(made)

    job = await exchange.submit()
    order = await node.lease_of(job)
    at = now_ms() - 1_000
    later = checklist(device_memory_leftovers="not_run")
    later = replace(later, at=later.at - 1)
    await node.report(
        started(order, at=at),
        ChecklistPosted(checklist=later),
        offer_with(digest(later)),  # checked anew meanwhile: the receipt names what the lease was taken on
        exited(order, started_at=at),
    )
    (listed,) = (await exchange.client.get(f"/v1/receipts?job={job}")).json()["items"]
    receipt = await exchange.client.get(f"/v1/receipts/{listed['id']}")
    assert receipt.json()["receipt"]["sandbox"]["checklist"] == digest(made)
    assert verify_receipt(receipt.text).valid

    async with exchange.client_with("") as stranger:
        stranger.headers.pop("authorization", None)
        answer = await stranger.get(f"/v1/checklists/{digest(made)}")
        missing = await stranger.get(f"/v1/checklists/sha256:{'0' * 64}")
    assert answer.status_code == 200
    assert missing.status_code == 404
    shown = answer.json()
    assert {each["name"]: each["outcome"] for each in shown["results"]} == {
        each.name: each.outcome for each in made.results
    }
    proven = verify_checklist(shown["jws"], named=digest(made))
    assert (proven.node, proven.checklist) == (node.id, made)
    with pytest.raises(InvalidInput, match="another checklist"):
        verify_checklist(shown["jws"], named=digest(later))


async def test_an_offer_on_a_checklist_that_fails_or_is_nowhere_is_refused(
    exchange: Running, node: ScriptedNode
) -> None:
    made = checklist()
    await node.report(ChecklistPosted(checklist=made), offer_with(digest(made)))
    for outcome, check in (("failed", "mounts"), ("not_run", "host_files")):
        unsafe = checklist(**{check: outcome})  # type: ignore[arg-type]
        await node.report(ChecklistPosted(checklist=unsafe), offer_with(digest(unsafe)))
        assert await _offered(exchange) == digest(made)
        notice = (await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"]
        assert check.replace("_", "-") in notice
    await node.report(offer_with(f"sha256:{'0' * 64}"))
    assert await _offered(exchange) == digest(made)
    notice = (await exchange.client.get(f"/v1/nodes/{node.id}")).json()["notice"]
    assert "has not sent" in notice


async def test_only_the_last_ones_are_kept_and_those_that_something_names(
    exchange: Running, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perak.adapters.db.checklists.KEPT_BY_NODE", 1)
    named, old, new = (replace(checklist(), at=at) for at in (1, 2, 3))
    await node.report(ChecklistPosted(checklist=named), offer_with(digest(named)))
    await node.report(ChecklistPosted(checklist=old))
    await node.report(ChecklistPosted(checklist=new))
    for each, status in ((named, 200), (old, 404), (new, 200)):
        assert (await exchange.client.get(f"/v1/checklists/{digest(each)}")).status_code == status


async def test_a_limit_that_does_not_hold_is_no_reason_to_refuse(
    exchange: Running, node: ScriptedNode
) -> None:
    made = checklist(disk_fill="failed", cpu_share="not_run")
    await node.report(ChecklistPosted(checklist=made), offer_with(digest(made)))
    assert await _offered(exchange) == digest(made)
