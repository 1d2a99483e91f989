"""A run's id can't escape its folder, and a spec comes back from disk as it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perak.agent.sandbox.spec import Mount, RunSpec, check_run_id, spec_from_json, spec_to_json
from perak.domain.ids import new_id

_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
_NAME = _TEXT.filter(lambda text: text != "" and not set(text) & {"=", "\0"})


def _spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "run_id": "run-01jd0abcd@local",
        "lease_id": "lease-1@local",
        "job_id": "job-1@local",
        "epoch": 1,
        "setup": None,
        "command": "true",
        "cpu_milli": 1000,
        "memory_bytes": 1,
        "disk_bytes": 1,
        "shm_bytes": 0,
        "log_bytes_max": 0,
        "max_duration_seconds": 1.0,
    }
    return RunSpec(**fields | changes)


def test_the_exchanges_own_ids_are_accepted() -> None:
    run_id = new_id("run", exchange="local-2", now_ms=1_700_000_000_000, random=12345)
    assert check_run_id(run_id) == run_id


@pytest.mark.parametrize(
    "text",
    ["", "run-1", "../run-1@local", "run-1@local/..", "run-1@local\n", "run-1@lo.cal", "Run-1@local", "."],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a run"):
        check_run_id(text)


@given(st.text(max_size=60))
def test_no_accepted_id_is_a_path(text: str) -> None:
    try:
        check_run_id(text)
    except ValueError:
        return
    assert "/" not in text
    assert not text.startswith(".")
    assert text.isascii()
    assert len(text) < 100


@given(
    command=_TEXT,
    setup=st.none() | _TEXT,
    env=st.dictionaries(_NAME, _TEXT.filter(lambda text: "\0" not in text), max_size=3),
    mounts=st.lists(st.builds(Mount, source=_TEXT, target=_TEXT), max_size=2),
)
def test_a_spec_survives_the_disk(
    command: str, setup: str | None, env: dict[str, str], mounts: list[Mount]
) -> None:
    spec = _spec(command=command, setup=setup, env=env, mounts=tuple(mounts), path_prefix=("/a",))
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize("field", ["cpu_milli", "memory_bytes", "disk_bytes", "pids_max"])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        _spec(**{field: 0})


@pytest.mark.parametrize("name", ["A=B", "", "A\0B", "\ud800"])
def test_what_cannot_be_an_environment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="environment"):
        _spec(env={name: "x"})


def test_a_script_has_a_limit() -> None:
    with pytest.raises(ValueError, match="larger than"):
        _spec(command="#" * (1 << 20) + "#")


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _spec().epoch = 2  # type: ignore[misc]
