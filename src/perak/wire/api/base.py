"""What every HTTP model is made of: money, pages, problems, limits."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator

PAGE_LIMIT_DEFAULT = 50
PAGE_LIMIT_MAX = 200
"""A page stays well under a megabyte."""
IDEMPOTENCY_KEY_MAX = 128
BODY_BYTES_MAX = 2**20
"""JSON bodies; work folders go as blobs."""

Role = Literal["renter", "provider", "operator"]
Scope = Literal["full", "submit", "read"]
"""What of its roles a key may do: all; submit and cancel jobs, and read; or only read."""
Money = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]{1,6})?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class Model(BaseModel):
    """Requests refuse unknown keys; replies may grow new ones, which older clients ignore."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        """The database takes no NUL in a text."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a NUL character, which no text has")
        return value


T = TypeVar("T")


class Page(Model, Generic[T]):
    """One page; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


class Problem(Model):
    """An error (RFC 9457). `code` is stable; `detail` says what happened, why, and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    errors: list[dict[str, Any]] = []
