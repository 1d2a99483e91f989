"""The window that a job file reserves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from perak.domain import job as domain
from perak.domain.market.windows import WINDOW_SECONDS_MAX, WINDOW_SECONDS_MIN
from perak.domain.units import format_duration
from perak.wire.jobfile.block import Block
from perak.wire.jobfile.values import duration, refuse

MOMENT_LENGTH_MAX = 40


def moment(value: object) -> datetime:
    """An aware UTC datetime of ``2026-12-01T08:00Z``, or another ISO 8601 time; one without a zone is UTC."""
    try:
        at = datetime.fromisoformat(str(value).strip()[:MOMENT_LENGTH_MAX])
        if not isinstance(value, str) or at.microsecond:
            raise ValueError
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refuse(
            f"{str(value)[:40]!r} is not a moment; write it like 2026-12-01T08:00Z, or with another zone as "
            "2026-12-01T09:00+01:00"
        ) from None


def at_most_the_longest(value: int) -> int:
    if value > WINDOW_SECONDS_MAX:
        raise refuse(f"must be at most {format_duration(WINDOW_SECONDS_MAX)}")
    return value


class Reserve(Block):
    start: Annotated[datetime, BeforeValidator(moment, json_schema_input_type=str)] = Field(
        description="When the window begins: ISO 8601, in UTC unless it says otherwise.",
        examples=["2026-12-01T08:00Z"],
    )
    length: Annotated[int, duration(WINDOW_SECONDS_MIN), AfterValidator(at_most_the_longest)] = Field(
        alias="for", description="How long it lasts; the job has ended by then.", examples=["4h"]
    )


def reserve(block: Reserve | None) -> domain.Reserve | None:
    return None if block is None else domain.Reserve(start_at=block.start, seconds=block.length)
