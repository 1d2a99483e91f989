"""Every lifecycle of Perak as a table. The diagrams in the documentation are made from these tables.

A lifecycle moves only through `step`; a pair that is not in its table raises `IllegalTransition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perak.domain.errors import IllegalTransition


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """A table of (state, event) -> state, with one initial state and the terminal ones."""

    name: str
    initial: str
    table: Mapping[tuple[str, str], str]

    @property
    def states(self) -> frozenset[str]:
        return frozenset({self.initial, *(s for s, _ in self.table), *self.table.values()})

    @property
    def terminal(self) -> frozenset[str]:
        """States that nothing leaves."""
        return self.states - {state for state, _ in self.table}

    def step(self, state: str, event: str) -> str:
        """The next state. Raises IllegalTransition for a pair that the table lacks."""
        following = self.table.get((state, event))
        if following is None:
            raise IllegalTransition(f"a {self.name} that is {state} can't take the step {event!r}")
        return following

    def allows(self, state: str, event: str) -> bool:
        return (state, event) in self.table

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram, for the documentation."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        lines += [f"    {state} --> {to}: {event}" for (state, event), to in self.table.items()]
        lines += [f"    {state} --> [*]" for state in sorted(self.terminal)]
        return "\n".join(lines)


JOB = Lifecycle(
    name="job",
    initial="queued",
    table={
        ("queued", "leased"): "leased",
        ("queued", "cancelled"): "cancelled",
        ("queued", "failed"): "failed",
        ("leased", "started"): "running",
        ("leased", "requeued"): "queued",
        ("leased", "cancel_asked"): "cancelling",
        ("leased", "succeeded"): "succeeded",
        ("leased", "failed"): "failed",
        ("running", "requeued"): "queued",
        ("running", "cancel_asked"): "cancelling",
        ("running", "succeeded"): "succeeded",
        ("running", "failed"): "failed",
        # A cancellation may lose the race against the job's own end; then the end is what happened.
        ("cancelling", "cancelled"): "cancelled",
        ("cancelling", "succeeded"): "succeeded",
        ("cancelling", "failed"): "failed",
    },
)

LEASE = Lifecycle(
    name="lease",
    initial="active",
    table={
        ("active", "silent"): "suspected",
        ("active", "ended"): "ended",
        ("active", "fenced"): "fenced",
        ("suspected", "returned"): "active",
        ("suspected", "ended"): "ended",
        ("suspected", "fenced"): "fenced",
    },
)

RUN = Lifecycle(
    name="run",
    initial="assigned",
    table={
        ("assigned", "preparing"): "preparing",
        ("assigned", "started"): "running",
        ("assigned", "exited"): "exited",
        ("assigned", "refused"): "refused",
        ("assigned", "fenced"): "fenced",
        ("preparing", "preparing"): "preparing",
        ("preparing", "started"): "running",
        ("preparing", "exited"): "exited",
        ("preparing", "refused"): "refused",
        ("preparing", "fenced"): "fenced",
        ("running", "exited"): "exited",
        ("running", "fenced"): "fenced",
    },
)

NODE = Lifecycle(
    name="node",
    initial="enrolled",
    table={
        ("enrolled", "connected"): "online",
        ("online", "connected"): "online",
        ("online", "silent"): "suspected",
        ("suspected", "connected"): "online",
        ("suspected", "lost"): "offline",
        ("offline", "connected"): "online",
        ("enrolled", "revoked"): "revoked",
        ("online", "revoked"): "revoked",
        ("suspected", "revoked"): "revoked",
        ("offline", "revoked"): "revoked",
    },
)

MODE = Lifecycle(
    name="mode",
    initial="accepting",
    table={
        ("accepting", "paused"): "paused",
        ("accepting", "draining"): "draining",
        ("paused", "resumed"): "accepting",
        ("paused", "draining"): "draining",
        ("draining", "resumed"): "accepting",
        ("draining", "paused"): "paused",
    },
)

OFFER = Lifecycle(
    name="offer",
    initial="open",
    table={
        ("open", "paused"): "paused",
        ("paused", "resumed"): "open",
        ("open", "withdrawn"): "withdrawn",
        ("paused", "withdrawn"): "withdrawn",
        ("withdrawn", "resumed"): "open",
    },
)

RESERVATION = Lifecycle(
    name="reservation",
    initial="booked",
    table={
        ("booked", "moved"): "booked",
        ("booked", "begun"): "begun",
        ("booked", "cancelled"): "cancelled",
        ("booked", "lost"): "lost",
        # A run that was lost is run again in what is left of the window, there or elsewhere.
        ("begun", "begun"): "begun",
        ("begun", "moved"): "begun",
        ("begun", "ended"): "ended",
    },
)

ALL = (JOB, LEASE, RUN, NODE, MODE, OFFER, RESERVATION)

JOB_LIVE = ("queued", "leased", "running", "cancelling")
JOB_ENDED = ("succeeded", "failed", "cancelled")
LEASE_LIVE = ("active", "suspected")
RESERVATION_LIVE = ("booked", "begun")
