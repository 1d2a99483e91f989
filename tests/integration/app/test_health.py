"""How hot a node is: kept as it last said, told as it turns, and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.app.conftest import PROVIDER, World
from perak.adapters.db.views.market import get_node
from perak.app import reports
from perak.domain.plausible import Implausible
from perak.domain.report import Health, Report, Sensor


def heat(celsius: float, **changes: Any) -> Health:
    fields = {"id": "GPU-1", "name": "GPU 0 V100", "hot_celsius": 90.0, "limit_source": "NVML"} | changes
    return Health(sensors=(Sensor(celsius=celsius, **fields),))


async def told(world: World) -> list[tuple[str, str]]:
    async with world.db.connection() as connection:
        rows = await connection.fetch("select event, body from webhook_delivery order by id")
    return [(row["event"], json.loads(row["body"])["data"]["detail"]) for row in rows]


@pytest.fixture(autouse=True)
async def webhook(world: World) -> None:
    async with world.db.transaction() as tx:
        await tx.webhooks.insert(
            id="w", project=PROVIDER.project, url="https://x", events=["node.hot", "node.cool"],
            secret_sealed=b"", limit=1, now=world.now,
        )  # fmt: skip


async def test_the_owner_is_told_once_as_it_turns_hot_and_once_as_it_is_cool(world: World) -> None:
    for celsius in (70, 90, 93, 86, 85, 84, 86):
        await world.report(heat(celsius))
        world.wait(60)
    (hot, what), (cool, again) = await told(world)
    assert (hot, cool) == ("node.hot", "node.cool")
    assert "GPU 0 V100 is at 90 °C, its limit is 90 °C (NVML)" in what
    assert "cool again: GPU 0 V100 is at 84 °C" in again
    async with world.db.connection() as connection:
        node = await get_node(connection, world.node, project=PROVIDER.project)
    assert node is not None
    (temperature,) = node.temperatures
    assert (temperature.celsius, temperature.hot) == (86, False)


async def test_a_node_that_flickers_turns_no_oftener_than_agents_look(world: World) -> None:
    for celsius in (90, 10) * 20:
        await world.report(heat(celsius))
    assert len(await told(world)) == 1
    world.wait(2)
    await world.report(heat(10))
    assert [event for event, _ in await told(world)] == ["node.hot", "node.cool"]


async def test_what_was_said_long_ago_is_no_news(world: World) -> None:
    world.wait(-3600)
    said_at = world.now_ms
    world.wait(3600)
    late = Report(seq=world.seq + 1, node=world.node, at=said_at, body=heat(95), jws="jws")
    async with world.db.transaction() as tx:
        await reports.apply_reports(
            tx, node_id=world.node, reports=[late], context=world.context, now=world.now
        )
    assert await told(world) == []


@pytest.mark.parametrize(
    "wrong", [{"celsius": 1000}, {"celsius": float("nan")}, {"celsius": 50, "name": "x" * 300}]
)
async def test_what_no_chip_can_be_is_refused(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(Implausible):
        await world.report(heat(**wrong))
