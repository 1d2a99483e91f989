"""Nodes that open a session, many in one transaction: after a restart of the exchange all come at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from perak.app.alerts import tell
from perak.app.effects import Effect, JobChanged, MarketChanged
from perak.app.periods import Periods
from perak.app.ports import Transaction
from perak.app.records import Connected, NodeRecord, SessionHold
from perak.domain.errors import Conflict, DomainError, NotAuthenticated
from perak.domain.lifecycle import NODE

SECOND_AGENT = "second_agent"
"""Code of the refusal of an agent whose node has a session of another one that spoke since, elsewhere."""
WAIT = "wait_for_other_agent"
"""Code of the refusal where the other one has not spoken since: it may be gone. Ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """An agent that proved the node's key, and the number that its session drew."""

    node: str
    agent: str
    agent_version: str
    boot: str
    session: int
    arrived_at: datetime
    """When the agent was first there: whoever speaks after that is another one."""


async def connect(
    tx: Transaction, *, greetings: Sequence[Greeting], replica: int, periods: Periods, now: datetime
) -> tuple[list[NodeRecord | DomainError], list[Effect]]:
    """Open sessions at a replica: the nodes are online, and their suspected leases are their own again.

    For each greeting, the node as it was before, or why it is refused. One node is greeted once in a call.
    """
    locked = {node.id: (node, hold) for node, hold in await tx.sessions.lock([g.node for g in greetings])}
    elsewhere = await _held_elsewhere(tx, greetings, locked, replica=replica, periods=periods, now=now)
    answers: list[NodeRecord | DomainError] = []
    welcome: list[tuple[Greeting, NodeRecord]] = []
    for greeting in greetings:
        node, _ = locked.get(greeting.node, (None, None))
        if node is None or node.state == "revoked":
            answers.append(NotAuthenticated(f"the node {greeting.node} is not enrolled here, or was revoked"))
        elif greeting.node in elsewhere:
            answers.append(Conflict("another agent of this node has a session", code=elsewhere[node.id]))
        else:
            answers.append(node)
            welcome.append((greeting, node))
    return answers, await _connected(tx, welcome, replica=replica, now=now)


async def _held_elsewhere(
    tx: Transaction,
    greetings: Sequence[Greeting],
    locked: dict[str, tuple[NodeRecord, SessionHold]],
    *,
    replica: int,
    periods: Periods,
    now: datetime,
) -> dict[str, str]:
    """The nodes whose session another agent has at another replica, which lives and has heard of it of late;
    for each the code that says whether it spoke since the newcomer arrived.

    The same agent that dials another replica has lost its old connection, and takes over. A replica that
    died holds nothing, however short a time ago: it has lost its connection to the database.
    """
    since = now - timedelta(seconds=periods.suspect_after_seconds)
    holders: dict[str, tuple[int, str]] = {}
    for greeting in greetings:
        node, hold = locked.get(greeting.node, (None, None))
        if node is None or hold is None or hold.replica is None or hold.replica == replica:
            continue
        if node.agent_id != greeting.agent and hold.seen_at is not None and hold.seen_at > since:
            code = SECOND_AGENT if hold.seen_at > greeting.arrived_at else WAIT
            holders[node.id] = hold.replica, code
    if not holders:
        return {}
    live = await tx.sessions.live_replicas(since=since)
    return {node: code for node, (holder, code) in holders.items() if holder in live}


async def _connected(
    tx: Transaction, welcome: Sequence[tuple[Greeting, NodeRecord]], *, replica: int, now: datetime
) -> list[Effect]:
    if not welcome:
        return []
    changes = [
        Connected(
            node=node.id,
            state=NODE.step(node.state, "connected"),
            agent=greeting.agent,
            agent_version=greeting.agent_version,
            boot=greeting.boot,
            session=greeting.session,
        )
        for greeting, node in welcome
    ]
    await tx.sessions.connected(changes, replica=replica, now=now)
    nodes = {node.id: node for _, node in welcome}
    for node in nodes.values():
        if node.state == "offline":
            await tell(tx, node=node, event="node.online", detail=f"{node.name} is back", now=now)
    effects: list[Effect] = []
    if any(node.state != "online" for node in nodes.values()):
        effects.append(MarketChanged())
    for id, job in await tx.sessions.restore(list(nodes), now=now):
        detail = f"node {nodes[id].name} is back; the run goes on"
        await tx.jobs.event(job, kind="state", detail=detail, now=now)
        effects.append(JobChanged(job))
    return effects
