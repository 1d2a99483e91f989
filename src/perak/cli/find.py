"""Finding a thing by id, by the end of its id, or by a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)

SHORT_ID_MIN = 4


def find(
    ref: str, things: Iterable[T], *, kind: str, names: Callable[[T], tuple[str, ...]] = lambda _: ()
) -> T:
    """The one thing that `ref` names. Raises NotFound, or PerakError where several fit."""
    from perak.client.errors import NotFound, PerakError
    from perak.wire.api import Problem

    listed = list(things)
    for fits in (
        lambda thing: thing.id == ref,
        lambda thing: ref in names(thing),
        lambda thing: len(ref) >= SHORT_ID_MIN and thing.id.partition("@")[0].endswith(ref.lower()),
    ):
        found = [thing for thing in listed if fits(thing)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(thing.id for thing in found[:5])
            raise PerakError(f"{ref!r} fits several: {ids}. Give more of the id.", code="ambiguous")
    detail = f"There is no {kind} {ref!r}. `perak {kind} ls` lists all."
    raise NotFound(Problem(title="Not found", status=404, detail=detail, code="not_found"))
