"""Reports of several nodes in one transaction: settled together, and none pays for another's fault."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from integration.app.conftest import PROVIDER, START, World, ask
from integration.app.test_way_of_a_job import exited
from perak.app import nodes, sessions
from perak.app.periods import Periods
from perak.domain.errors import Conflict, NotFound
from perak.domain.plausible import Implausible
from perak.domain.report import Body, LogChunk, Report
from perak.server import clock
from perak.server.committer import ReportCommitter
from perak.server.hub import Hub
from perak.server.metrics import Metrics
from perak.server.transact import Transact

RUNS_OF_A_NODE = 2

Leases = Mapping[str, list[dict[str, Any]]]


@pytest.fixture
def apply(world: World, monkeypatch: pytest.MonkeyPatch) -> ReportCommitter:
    monkeypatch.setattr(clock, "now", lambda: world.now)
    return ReportCommitter(Transact(world.db, Hub("test"), Metrics()), world.context)


async def running(world: World, *, others: int) -> Leases:
    """The leases of full nodes: the world's own and `others`."""
    names = [world.node, *[await _enrolled(world, number) for number in range(others)]]
    for node in names:
        await _offer(world, node)
    await world.fund(100_000_000)
    submitted = [await world.submit() for _ in range(RUNS_OF_A_NODE * len(names))]
    await world.clear()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in submitted:
        lease = await world.lease(job)
        found[lease["node_id"]].append(lease)
    assert {node: len(leases) for node, leases in found.items()} == dict.fromkeys(names, RUNS_OF_A_NODE)
    world.wait(100)
    return found


async def _enrolled(world: World, number: int) -> str:
    node, secret = world.context.new_id("node"), f"secret-{number}".encode()
    async with world.db.transaction() as tx:
        await nodes.invite(
            tx,
            caller=PROVIDER,
            secret_hash=secret,
            uses=1,
            ttl_seconds=60,
            new_id=world.context.new_id,
            now=world.now,
        )
        new = nodes.NewNode(
            id=node,
            name=f"other-{number}",
            sign_key=bytes([number]) * 32,
            seal_key=b"x" * 32,
            certificate_chain="",
            certificate_expires_at=START + timedelta(days=1),
        )
        await nodes.enrol(tx, node=new, secret_hash=secret, now=world.now)
        greeting = sessions.Greeting(
            node=node, agent="a", agent_version="0", boot="b", session=2 + number, arrived_at=world.now
        )
        await sessions.connect(tx, greetings=[greeting], replica=1, periods=Periods(), now=world.now)
    return node


async def _offer(world: World, node: str) -> None:
    """Room for RUNS_OF_A_NODE, and one report applied so far."""
    async with world.db.transaction() as tx:
        record = await tx.nodes.lock(node)
        assert record is not None
        offer = ask(cpu_milli=RUNS_OF_A_NODE * 250)
        await tx.offers.post(id=world.context.new_id("offer"), node=record, ask=offer, now=world.now)
        await tx.nodes.applied({node: 1}, now=world.now)


def reported(world: World, node: str, *bodies: Body, first: int = 1) -> list[Report]:
    return [
        Report(seq=first + i, node=node, at=world.now_ms, body=body, jws=f"jws-{node}-{first + i}")
        for i, body in enumerate(bodies)
    ]


def ends(world: World, leases: Leases, node: str) -> list[Report]:
    begin = world.now_ms - 60_000
    return reported(
        world, node, *(exited(lease, begin=begin, end=world.now_ms) for lease in leases[node]), first=2
    )


async def settled(world: World) -> tuple[int, int]:
    """How many runs were settled, and in how many transactions."""
    row = await world.one("select count(*) as runs, count(distinct xmin::text) as transactions from receipt")
    assert sum((await world.balances()).values()) == 0
    return row["runs"], row["transactions"]


async def test_what_waits_together_is_settled_in_one_transaction(
    world: World, apply: ReportCommitter
) -> None:
    leases = await running(world, others=2)
    applied = await asyncio.gather(*(apply(node, ends(world, leases, node)) for node in leases))
    assert applied == [1 + RUNS_OF_A_NODE] * 3
    assert await settled(world) == (6, 1)
    for node in leases:
        for lease in leases[node]:
            assert (await world.lease(lease["job_id"]))["cost"] == 1_500
            assert (await world.job(lease["job_id"]))["state"] == "succeeded"
    free = await world.one("select sum(used_cpu_milli) as used from offer")
    assert free["used"] == 0


async def test_a_node_that_says_what_can_not_be_is_told_and_the_others_are_settled(
    world: World, apply: ReportCommitter
) -> None:
    leases = await running(world, others=2)
    late, liar, honest = leases
    impossible = exited(leases[liar][0], begin=-1, end=world.now_ms)
    answers = await asyncio.gather(
        apply(late, reported(world, late, impossible, first=5)),
        apply(liar, reported(world, liar, impossible, first=2)),
        apply("node-of-nobody", reported(world, "node-of-nobody", impossible)),
        apply(honest, ends(world, leases, honest)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Conflict, Implausible, NotFound, int]
    assert answers[0].code == "report_gap"  # type: ignore[union-attr]
    assert await settled(world) == (2, 1)


async def test_a_group_that_fails_late_is_applied_node_by_node(world: World, apply: ReportCommitter) -> None:
    """Where a chunk of a log lacks the one before it, its node's ends of runs wait, and nobody else's."""
    leases = await running(world, others=2)
    torn, *others = leases
    first, second = leases[torn]
    chunk = LogChunk(run=second["run"], lease=second["id"], epoch=1, offset=7, data=b"x")
    end = exited(first, begin=world.now_ms - 60_000, end=world.now_ms)
    answers = await asyncio.gather(
        apply(torn, reported(world, torn, end, chunk, first=2)),
        *(apply(node, ends(world, leases, node)) for node in others),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Conflict, int, int]
    assert await settled(world) == (4, 2)
    assert (await world.lease(first["job_id"]))["state"] == "active"


async def test_a_node_that_waits_twice_is_applied_once_after_the_other(
    world: World, apply: ReportCommitter
) -> None:
    """Its agent dialled again while the reports of its old session waited: it sends them once more."""
    leases = await running(world, others=0)
    again = ends(world, leases, world.node)
    assert await asyncio.gather(*(apply(world.node, again) for _ in range(3))) == [3, 3, 3]
    assert await settled(world) == (2, 1)
