"""What an owner is told of its nodes without asking: messages for the webhooks of its project."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from perak.app.ports import Transaction
from perak.app.records import NodeRecord

EVENTS = {
    "node.offline": "a node was silent for so long that it counts as gone",
    "node.online": "a node that counted as gone is back",
    "node.hot": "a part of a node is as hot as it may be, and slows itself; the detail names it",
    "node.cool": "no part of a node that was hot is hot any more",
    "node.stuck": "a run was ended, because its node did not say in time how it began or ended",
    "node.refused": "a node, or something of it, was refused; the detail says why",
}
"""Every event that a webhook may ask for, and what it means."""
TEST_EVENT = "webhook.test"

QUIET = timedelta(minutes=10)
"""An agent that is refused dials again for ever: the same event and subject of a node is told this often at
most. Offline and online take turns, and are always told."""
QUIET_EVENTS = frozenset({"node.refused"})


async def tell(
    tx: Transaction, *, node: NodeRecord, event: str, detail: str, now: datetime, subject: str | None = None
) -> None:
    """Queue a message for each webhook of the node's project that wants `event`, in this transaction.

    `subject`: what it is of, within the event; each is told apart from the others.
    """
    assert event in EVENTS
    await tx.webhooks.enqueue(
        project=node.project,
        event=event,
        node=node.id,
        subject=subject,
        body=body(event, {"node": node.id, "name": node.name, "detail": detail}, now=now),
        unless_since=now - QUIET if event in QUIET_EVENTS else None,
        now=now,
    )


async def tell_project(
    tx: Transaction, *, project: str, event: str, subject: str, name: str, detail: str, now: datetime
) -> None:
    """The same of a machine that is no node yet, named `name`."""
    assert event in EVENTS
    await tx.webhooks.enqueue(
        project=project,
        event=event,
        node=None,
        subject=subject,
        body=body(event, {"name": name, "detail": detail}, now=now),
        unless_since=now - QUIET,
        now=now,
    )


def body(event: str, data: dict[str, str], *, now: datetime) -> str:
    """The bytes that are signed and sent, in the shape that Standard Webhooks recommends."""
    message = {"type": event, "timestamp": now.isoformat(timespec="milliseconds"), "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
