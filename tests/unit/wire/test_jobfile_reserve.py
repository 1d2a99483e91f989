"""The window that a job file reserves: when it begins, for how long, and what can't stand beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perak.domain.job import JobSpec, Reserve
from perak.wire.jobfile import JobFileError, parse_job, spec_to_tree

WINDOW = {"start": "2026-12-01T08:00Z", "for": "4h"}


def parsed(**more: Any) -> JobSpec:
    return parse_job({"name": "hello", "run": "echo hello", **more}, workdir_digest=None)


@pytest.mark.parametrize(
    "start", ["2026-12-01T08:00Z", "2026-12-01 08:00", "2026-12-01T09:00+01:00", "2026-12-01T08:00:00Z"]
)
def test_a_window_begins_in_utc_unless_it_says_otherwise(start: str) -> None:
    spec = parsed(reserve={"start": start, "for": "4h"})

    assert spec.reserve == Reserve(start_at=datetime(2026, 12, 1, 8, tzinfo=UTC), seconds=4 * 3600)
    assert (spec.product, spec.limits.max_duration_seconds) == ("reserved", 4 * 3600)
    assert parse_job(spec_to_tree(spec), workdir_digest=None) == spec


def test_a_job_is_what_its_keys_say() -> None:
    assert parsed().product == "on-demand"
    assert parsed(start={"within": "8h"}).product == "deferrable"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"reserve": "4h"}, "reserve"),
        ({"reserve": {"start": "2026-12-01T08:00Z"}}, "reserve.for"),
        ({"reserve": {"for": "4h"}}, "reserve.start"),
        ({"reserve": WINDOW | {"start": "tomorrow"}}, "reserve.start"),
        ({"reserve": WINDOW | {"start": 20261201}}, "reserve.start"),
        ({"reserve": WINDOW | {"for": "5s"}}, "reserve.for"),
        ({"reserve": WINDOW | {"for": "31d"}}, "reserve.for"),
        ({"reserve": WINDOW | {"until": "x"}}, "reserve.until"),
        ({"reserve": WINDOW, "start": {"within": "1h"}}, "start"),
        ({"reserve": WINDOW, "limits": {"max_duration": "4h"}}, "limits.max_duration"),
    ],
)
def test_what_is_wrong_is_refused_at_its_key(more: dict[str, Any], key: str) -> None:
    with pytest.raises(JobFileError) as caught:
        parsed(**more)

    assert [error["key"] for error in caught.value.errors] == [key]
