"""Inputs of closed stores: their credentials are a secret's name, and go the whole way."""

from __future__ import annotations

from typing import Any

import pytest

from perak.domain.job import Input
from perak.wire.jobfile import JobFileError, parse_job, spec_to_tree

JOB: dict[str, Any] = {"name": "reads", "run": "true"}
CLOSED = {"source": "s3://bucket/set.zip", "credentials": "STORE"}


def test_credentials_are_named_and_come_back() -> None:
    spec = parse_job(
        JOB | {"inputs": {"data/": CLOSED, "open": "s3://bucket/x"}, "secrets": ["TOKEN"]},
        workdir_digest=None,
    )
    assert spec.inputs == (
        Input(path="data/", url="s3://bucket/set.zip", credentials="STORE"),
        Input(path="open", url="s3://bucket/x"),
    )
    assert spec.secret_names() == {"STORE", "TOKEN"}
    assert spec_to_tree(spec)["inputs"] == {"data/": CLOSED, "open": "s3://bucket/x"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"source": "job:job-1@local", "credentials": "STORE"}, "for s3:// alone"),
        ({"source": "s3://bucket/x", "password": "x"}, "has no 'password'"),
        ({"credentials": "STORE"}, "is not a source"),
        ({"source": "s3://bucket/x", "credentials": "no name"}, "no name"),
    ],
)
def test_what_makes_no_sense_is_refused(source: dict[str, str], says: str) -> None:
    with pytest.raises(JobFileError, match=says):
        parse_job(JOB | {"inputs": {"data/": source}}, workdir_digest=None)
