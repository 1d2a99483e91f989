"""The Pareto front: what no other beats in everything at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float | None, ...]]) -> tuple[int, ...]:
    """The indexes of the points that no other dominates; all figures are better when smaller.

    A figure that is not known counts as worse than any that is. Of equal points all are on the front.
    """
    known = [tuple(math.inf if each is None else each for each in point) for point in points]
    order = sorted(range(len(known)), key=lambda index: known[index])
    kept: list[int] = []
    for index in order:  # What dominates a point sorts before it.
        if not any(_dominates(known[other], known[index]) for other in kept):
            kept.append(index)
    return tuple(sorted(kept))


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
