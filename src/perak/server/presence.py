"""Which nodes have a session here, and when each was last heard of."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True, eq=False)
class LiveSession:
    """A node's open session: which start of the agent it is, and when it last spoke (monotonic seconds)."""

    node: str
    agent_id: str
    spoke_at: float = field(default_factory=time.monotonic)
    replaced: bool = False
    """Another session of the same agent took over; this one closes."""

    def is_silent(self, seconds: float) -> bool:
        """Whether it has said nothing for longer than `seconds`."""
        return time.monotonic() - self.spoke_at > seconds


class Presence:
    """The sessions of one replica. Last-seen times are written to the database by the watch, in one go."""

    def __init__(self, *, suspect_after_seconds: float) -> None:
        self._suspect_after_seconds = suspect_after_seconds
        self._sessions: dict[str, LiveSession] = {}
        self._seen: dict[str, datetime] = {}

    def enter(self, node: str, agent_id: str) -> LiveSession | None:
        """Open a session; None where another agent of the node has a live one.

        The same agent that dials again has lost its old connection, and takes over. Another one is refused
        as long as the first speaks: two agents on one key would take each other's runs.
        """
        old = self._sessions.get(node)
        if old is not None and old.agent_id != agent_id and not old.is_silent(self._suspect_after_seconds):
            return None
        if old is not None:
            old.replaced = True
        session = self._sessions[node] = LiveSession(node, agent_id)
        return session

    def spoke_since(self, node: str, at: float) -> bool:
        """Whether the session of a node was heard after `at` (monotonic seconds)."""
        session = self._sessions.get(node)
        return session is not None and session.spoke_at > at

    def leave(self, session: LiveSession) -> None:
        if self._sessions.get(session.node) is session:
            del self._sessions[session.node]

    def spoke(self, session: LiveSession, at: datetime) -> None:
        session.spoke_at = time.monotonic()
        self._seen[session.node] = at

    def take_seen(self) -> list[tuple[str, datetime]]:
        """The last-seen times since the last call, by node (rows are locked in that order)."""
        seen, self._seen = self._seen, {}
        return sorted(seen.items())

    def __len__(self) -> int:
        return len(self._sessions)
