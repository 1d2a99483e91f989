"""What to wake after a commit. Effects are hints: whatever they wake reads the truth from the database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MarketChanged:
    """A job was queued, or a part of an offer became free: the market should clear."""


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """The leases that this node should have changed."""

    node: str


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job's log or state went on: its followers should look."""

    job: str


Effect = MarketChanged | NodeChanged | JobChanged
