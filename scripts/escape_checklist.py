"""Draw docs/escape-checklist.md from the table in `perak.domain.checklist`: run it after a change there."""

from __future__ import annotations

import sys
from pathlib import Path

from perak.domain.checklist import CHECKS, LIMITS, Check

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "escape-checklist.md"
WEAKNESSES = ROOT / "tests" / "integration" / "sandbox"

TRIED = """## Tried against a weakened sandbox

In bubblewrap each point is weakened alone; in the other tiers several at once that do not touch each other.
"""

HEAD = """# The escape checklist

What an agent tries from inside each of its sandbox tiers, as an ordinary job, before it offers the tier.
This page is drawn from [`perak.domain.checklist`](../src/perak/domain/checklist.py) by `python
scripts/escape_checklist.py`, and a test fails where it is not current.

- **When**: at the agent's start, for every tier; the answer is remembered until the machine restarts, and
  for as long as kernel, runtime, filter, control groups, scratch and Perak's own code are the same. On
  demand: `perak node doctor`.
- **How**: runs like any other, of two small programs of the standard library
  ([`inside`](../src/perak/agent/sandbox/escape/inside),
  [`bombs.py`](../src/perak/agent/sandbox/escape/bombs.py)). System calls are made by number, so that a
  missing tool never reads as a refusal. Outside lie bait (files, ports, sockets), a process under the run's
  own user, and a run that opens all it has to everybody; what happened to them counts more than what the
  attack says of itself.
- **Outcome**: *passed*, *failed*, or *did not run* and why. A "must" that failed or could not be tried
  keeps the tier off the market, unless there is nothing to attack (no GPU). A "limit" that does not hold is
  a mark on the offer. Where a tier has a kernel of its own, attacks on the kernel hit that one; then the
  detail says so. The network is tried twice: by a run that has none, and by one that may reach an address.
- **Proof**: the node signs the result. Offers and receipts name its digest, and `perak offer checks DIGEST`
  fetches and verifies it.
- **Do the checks check?** Each one fails against a sandbox that is really weakened in its point, in the
  tiers of the table at the end: `tests/integration/sandbox/test_escape_checks.py` and
  `test_escape_checks_tiers.py`, by the weaknesses of `weaknesses.py` beside them. A check that is missing
  there fails a test.
"""


def page() -> str:
    """The whole page, as it should be committed."""
    return "\n".join([HEAD, *(_section(limit) for limit in LIMITS), TRIED, _tried()])


def _tried() -> str:
    """The table of what the tests weaken."""
    sys.path.insert(0, str(WEAKNESSES))
    try:
        from weaknesses import table
    finally:
        sys.path.remove(str(WEAKNESSES))
    return f"{table()}\n"


def _section(limit: str) -> str:
    rows = [_row(check) for check in CHECKS if check.limit == limit]
    head = "| check | what is attacked | how it is judged | |\n|---|---|---|---|"
    return f"## {limit}\n\n{head}\n" + "\n".join(rows) + "\n"


def _row(check: Check) -> str:
    marks = [check.severity]
    marks += ["the kernel's"] if check.own_kernel_harmless else []
    marks += [f"without {check.may_lack}: not run"] if check.may_lack else []
    cells = (f"`{check.name}`", check.attacks, check.judged, "; ".join(marks))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
