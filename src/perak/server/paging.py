"""Pages with a cursor: the last id of a page leads to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Query

from perak.wire.api import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page

CURSOR_LENGTH_MAX = 100


class HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=HasId)


@dataclass(frozen=True, slots=True)
class Paging:
    """What of a list is asked for."""

    cursor: str | None
    limit: int

    @property
    def read(self) -> int:
        """Rows to read: one more than wanted tells whether another page follows."""
        return self.limit + 1

    def page(self, kind: type[Page[Item]], items: Sequence[Item]) -> Page[Item]:
        """The page of what was read; `kind` is the model of such a page."""
        shown = list(items[: self.limit])
        return kind.model_construct(
            items=shown, next_cursor=shown[-1].id if len(items) > self.limit else None
        )


async def _paging(
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_LENGTH_MAX, description="next_cursor of a page")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX)] = PAGE_LIMIT_DEFAULT,
) -> Paging:
    """A coroutine only so that the framework does not send it to a thread."""
    return Paging(cursor, limit)


AskedPage = Annotated[Paging, Depends(_paging)]
