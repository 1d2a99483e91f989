"""Keep how hot a node's parts are, and tell its owner when that becomes too much, and when it is over."""

from __future__ import annotations

from datetime import datetime, timedelta

from perak.app.alerts import tell
from perak.app.context import Context
from perak.app.incidents import take_heat
from perak.app.ports import Transaction
from perak.app.records import Heat, NodeRecord
from perak.domain.hardware.heat import hot_now, told
from perak.domain.report import Health

TURNS_LEAST = timedelta(seconds=2)
"""A node turns from hot to cool, or back, this long after it last turned: agents look less often, and a
node that makes temperatures up does not make its owner's webhook a hose. Level-triggered, the next report
turns it."""

STALE = timedelta(minutes=10)
"""What a node that was cut off says of a time longer ago is passed over: two reports later than it."""


async def take_health(
    tx: Transaction, *, node: NodeRecord, health: Health, at: datetime, context: Context, now: datetime
) -> None:
    """Keep the temperatures of a node, which is locked; tell `node.hot` and `node.cool` as it turns.

    Devices that turn hot have it in their passports. `at`: when the node read them, by its clock.
    """
    if now - at > STALE:
        return
    before = await tx.nodes.heat(node.id)
    hot = hot_now(health.sensors, hot_before=before.hot)
    turned_hot = [each for each in health.sensors if each.id in hot and each.id not in before.hot]
    await take_heat(tx, node=node, turned_hot=turned_hot, at=min(at, now), context=context, now=now)
    turns = bool(hot) != bool(before.hot)
    if turns and before.turned_at is not None and now - before.turned_at < TURNS_LEAST:
        turns, hot = False, before.hot
    heat = Heat(hot=hot, turned_at=now if turns else before.turned_at)
    await tx.nodes.set_health(node.id, health=health, at=min(at, now), heat=heat)
    if not turns:
        return
    if hot:
        parts = "; ".join(told(each) for each in health.sensors if each.id in hot)
        detail = f"{node.name}: {parts}. Look at its fans, dust and room, or lower its power limit"
        await tell(tx, node=node, event="node.hot", detail=detail, now=now)
    else:
        parts = "; ".join(told(each) for each in health.sensors if each.id in before.hot)
        detail = f"{node.name} is cool again" + (f": {parts}" if parts else "")
        await tell(tx, node=node, event="node.cool", detail=detail, now=now)
