"""Whether what is being fetched is still wanted: a job that is stopped meanwhile needs nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from perak.domain.errors import DomainError


class NotWanted(DomainError):
    """The work was called off; what came so far stays for whoever wants it next."""

    code = "not_wanted"


_is_wanted: ContextVar[Callable[[], bool] | None] = ContextVar("is_wanted", default=None)


@contextmanager
def as_long_as(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """What this thread fetches in the block ends with NotWanted once `is_wanted` says no."""
    token = _is_wanted.set(is_wanted)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def check() -> None:
    """Raises NotWanted. Asked between two pieces of any length, so it must be cheap."""
    is_wanted = _is_wanted.get()
    if is_wanted is not None and not is_wanted():
        raise NotWanted("the job was stopped meanwhile")
