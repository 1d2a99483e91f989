"""Wake-ups reach who waits, here and in other replicas, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib

from perak.app.effects import JobChanged, MarketChanged, NodeChanged
from perak.server.hub import CHANNEL, PAYLOAD_BYTES_MAX, Hub


async def test_only_who_waits_for_it_is_woken() -> None:
    hub = Hub("one")
    nodes: list[str] = []
    hub.on_node_changed(nodes.append)
    with hub.job("a") as a, hub.job("b") as b, hub.market() as market:
        hub.publish([JobChanged("a"), MarketChanged()])
        assert [await wakeup.wait(0) for wakeup in (a, b, market)] == [True, False, True]
        a.clear()
        assert not await a.wait(0)
        assert nodes == []
        hub.publish([NodeChanged("n")])
        assert nodes == ["n"]


async def test_hints_reach_other_replicas_in_few_notifications() -> None:
    one, two = Hub("one"), Hub("two")
    sent: list[str] = []

    async def notify(channel: str, payload: str) -> None:
        assert channel == CHANNEL
        assert len(payload.encode()) <= PAYLOAD_BYTES_MAX
        sent.append(payload)
        one.receive(payload)
        two.receive(payload)

    jobs = [f"job-{number:018}@exchange" for number in range(1000)]
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(two.job(job)) for job in jobs]
        own = stack.enter_context(one.job(jobs[0]))
        one.publish([JobChanged(job) for job in jobs] * 2)
        own.clear()
        forwarding = asyncio.create_task(one.forward(notify))
        async with asyncio.timeout(5):
            for wakeup in waiting:
                await wakeup.wait(5)
        forwarding.cancel()
        assert not await own.wait(0), "a replica is not woken by its own words"
    assert len(sent) < 10


async def test_a_revoked_key_empties_caches_everywhere() -> None:
    one, two = Hub("one"), Hub("two")
    emptied: list[str] = []
    one.on_keys_changed(lambda: emptied.append("one"))
    two.on_keys_changed(lambda: emptied.append("two"))
    done = asyncio.Event()

    async def notify(_: str, payload: str) -> None:
        two.receive(payload)
        done.set()

    one.keys_changed()
    forwarding = asyncio.create_task(one.forward(notify))
    await asyncio.wait_for(done.wait(), 5)
    forwarding.cancel()
    assert emptied == ["one", "two"]


def test_noise_on_the_channel_is_passed_over() -> None:
    hub = Hub("one")
    for payload in ("", "{}", '["x"]', '["x", [["job"]]]', "null"):
        hub.receive(payload)
