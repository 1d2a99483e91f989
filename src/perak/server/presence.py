"""Which nodes have a session here, and when each was last heard of."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

SESSION_BITS = 62
"""Of a session's number: positive as a bigint, and never drawn twice."""


@dataclass(slots=True, eq=False)
class LiveSession:
    """A node's open session: which start of the agent it is, and when it last spoke (monotonic seconds)."""

    node: str
    agent_id: str
    hang_up: Callable[[], None]
    number: int = field(default_factory=lambda: secrets.randbits(SESSION_BITS))
    spoke_at: float = field(default_factory=time.monotonic)

    def is_silent(self, seconds: float) -> bool:
        """Whether it has said nothing for longer than `seconds`."""
        return time.monotonic() - self.spoke_at > seconds


class Presence:
    """The sessions of one replica. Last-seen times are written to the database by the watch, in one go."""

    def __init__(self, *, suspect_after_seconds: float) -> None:
        self._suspect_after_seconds = suspect_after_seconds
        self._sessions: dict[str, LiveSession] = {}
        self._seen: dict[str, tuple[int, datetime]] = {}

    def enter(self, node: str, agent_id: str, hang_up: Callable[[], None]) -> LiveSession | None:
        """Open a session, which `hang_up` would end; None where another agent of the node has a live one.

        The same agent that dials again has lost its old connection, and takes over: the old one is hung up.
        Another one is refused as long as the first speaks: two agents on one key would take each other's
        runs.
        """
        old = self._sessions.get(node)
        if old is not None and old.agent_id != agent_id and not old.is_silent(self._suspect_after_seconds):
            return None
        session = self._sessions[node] = LiveSession(node, agent_id, hang_up)
        if old is not None:
            old.hang_up()
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
        self._seen[session.node] = session.number, at

    def take_seen(self) -> list[tuple[str, int, datetime]]:
        """(node, session, last-seen time) since the last call, by node: rows are locked in that order."""
        seen, self._seen = self._seen, {}
        return sorted((node, number, at) for node, (number, at) in seen.items())

    def hang_up_lost(self, seen: list[tuple[str, int, datetime]], *, held: set[str]) -> None:
        """End the sessions that were seen and are not `held` any more: another replica has the node now."""
        for node, number, _ in seen:
            session = self._sessions.get(node)
            if node not in held and session is not None and session.number == number:
                session.hang_up()

    def silent(self, seconds: float) -> Iterator[LiveSession]:
        """The sessions that have said nothing for longer than `seconds`."""
        return iter([session for session in self._sessions.values() if session.is_silent(seconds)])

    def __len__(self) -> int:
        return len(self._sessions)
