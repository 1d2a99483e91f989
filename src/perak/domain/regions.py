"""Places by law: which region lies in which."""

from __future__ import annotations

from functools import lru_cache

from perak.domain.facts.regions import ALIASES, ANYWHERE, GROUPS

PAIRS_MAX = 4096
"""Pairs of regions whose comparison is remembered."""


def normal_region(text: str) -> str:
    """``us_ca`` is ``US-CA``, ``UK`` is ``GB``."""
    head, dash, rest = text.strip().upper().replace("_", "-").partition("-")
    return ALIASES.get(head, head) + dash + rest


@lru_cache(maxsize=PAIRS_MAX)
def lies_in(place: str, region: str) -> bool:
    """Whether `place` is `region` or inside it: ``DE`` lies in ``EU``, ``US-CA`` in ``US``; not the reverse.

    A place that is unknown (``WORLD``) lies in no region but the world.
    """
    inner, outer = normal_region(place), normal_region(region)
    if outer in (ANYWHERE, inner):
        return True
    country = inner.partition("-")[0]
    return inner.startswith(f"{outer}-") or country in GROUPS.get(outer, ())
