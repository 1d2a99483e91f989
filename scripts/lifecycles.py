"""Draw docs/lifecycles.md from the tables in `perak.domain.lifecycle`: run it after a change there."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from perak.domain.lifecycle import ALL, Lifecycle

PAGE = Path(__file__).resolve().parent.parent / "docs" / "lifecycles.md"

HEAD = """# Lifecycles

Everything in Perak that has a state moves by a table of (state, event) -> state in
[`perak.domain.lifecycle`](../src/perak/domain/lifecycle.py); a step that is not in it is refused. This page
is drawn from these tables by `python scripts/lifecycles.py`, and a test fails where it is not current.
"""

INTRODUCTIONS = {
    "job": "What the renter asked for, over all its runs. A run that was lost through no fault of the job "
    "puts it back into the queue (`requeued`).",
    "lease": "The commitment of a part of an offer to a job. `suspected` means that the node is silent and "
    "may still return within the job's `disconnect_grace`; a `fenced` lease settles nothing any more.",
    "run": "One attempt of a job on a lease, as its node reports it. `refused` costs nothing.",
    "node": "A provider's machine, as the exchange sees it. Only an `online` one is given new work.",
    "mode": "What the owner wants of a node. A `paused` or `draining` one is given no new leases, and"
    " its runs go on to their end; a `draining` node that has no lease left is shown as drained.",
    "offer": "A node's standing ask. It never ends, because the node may come back with it.",
    "reservation": "A window that is kept for a job. `moved` is to another offer, where its own can't be had"
    " at the start; `lost` means that there was none, and all is refunded. It `ended` with its job.",
}


def page() -> str:
    """The whole page, as it should be committed."""
    return "\n".join([HEAD, *(_section(lifecycle) for lifecycle in ALL)])


def _section(lifecycle: Lifecycle) -> str:
    ends = ", ".join(f"`{state}`" for state in sorted(lifecycle.terminal)) or "none"
    return (
        f"## {lifecycle.name.capitalize()}\n\n{fill(INTRODUCTIONS[lifecycle.name], width=110)}\n\n"
        f"Begins `{lifecycle.initial}`; states that nothing leaves: {ends}.\n\n"
        f"```mermaid\n{lifecycle.mermaid()}\n```\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
