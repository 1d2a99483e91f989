"""Sandbox tiers, and which isolates a job more than which."""

from __future__ import annotations

RANKS = {
    "bubblewrap-userns": 0,
    "bubblewrap": 1,
    "crun": 2,
    "runc": 2,
    "gvisor": 3,
    "microvm": 4,
}
"""From least to most. 0: one user for all runs, since the agent isn't root; 1 and 2: namespaces of the node's
own kernel under a user of their own; 3: a kernel in user space; 4: a kernel of the job's own."""

ISOLATION = ("bubblewrap", "crun", "runc", "gvisor", "microvm")
"""What a renter may ask for as the least."""

DEFAULT_TIER = "bubblewrap"
LACKS = {"microvm": frozenset({"secrets", "network"})}
"""What a tier can't give a job: a virtual machine has no descriptors of the node's, and no network device."""
MEMORY_BYTES_MIN = {"microvm": 256 * 2**20}
"""What a job must have where a machine and its kernel live in its memory: half of it is theirs."""


def suffices(tier: str, least: str | None) -> bool:
    """Whether `tier` isolates at least as well as `least` (None: any tier that is offered)."""
    return least is None or RANKS.get(tier, -1) >= RANKS[least]


def choose_tier(offered: tuple[str, ...], least: str | None) -> str | None:
    """The tier for a job that asks for `least`: the lightest of those offered that suffices; None: none."""
    fitting = [tier for tier in offered if suffices(tier, least)]
    return min(fitting, key=lambda tier: (RANKS.get(tier, -1), offered.index(tier)), default=None)
