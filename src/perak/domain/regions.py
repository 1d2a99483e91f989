"""Places by law: which region lies in which."""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile

from perak.domain.facts.regions import ALIASES, ANYWHERE, GROUPS

PAIRS_MAX = 4096
"""Pairs of regions whose comparison is remembered."""
NEAR_LOOKED_AT = 10
NEAR_MIN = 0.7
"""The least likeness of what is suggested, as difflib counts it: one letter more or less in three."""


def normal_region(text: str) -> str:
    """``us_ca`` is ``US-CA``, ``UK`` is ``GB``."""
    head, dash, rest = text.strip().upper().replace("_", "-").partition("-")
    return ALIASES.get(head, head) + dash + rest


def is_known(region: str) -> bool:
    """Whether there is such a region: a group, a country, or a state of the USA; of other countries' parts
    only the country is known."""
    word = normal_region(region)
    return word in _known() or (word.partition("-")[0] in _known() and not word.startswith("US-"))


def nearest_region(region: str) -> str | None:
    """The region that is written most like `region`, from its first letter on: ``DE`` of ``DEU``."""
    from difflib import get_close_matches

    word = normal_region(region)
    alike = sorted(get_close_matches(word, sorted(_known()), n=NEAR_LOOKED_AT, cutoff=NEAR_MIN))
    return max(alike, key=lambda each: _alike_from_the_start(word, each), default=None)


def _alike_from_the_start(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    from perak.domain.facts.places import PLACES  # only who checks a region needs the table

    return frozenset({ANYWHERE, *GROUPS, *(row[0] for row in PLACES)})


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
