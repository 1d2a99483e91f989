"""The outer wall shows a runtime the very tree that bubblewrap alone would show the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perak.agent.sandbox import Mount, RunSpec, bwrap
from perak.agent.sandbox.tiers import RUNTIMES, wall
from perak.agent.sandbox.tiers.base import Candidate, Places, job_command
from perak.agent.sandbox.tiers.oci import config

AT = Places(scratch=Path("/s"), scripts=Path("/j"), own_etc=Path("/e"), files=Path("/f"))
CRUN = Candidate(path=Path("/usr/bin/crun"), version="crun 1", origin="system")


def spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "run_id": "run-1@local",
        "lease_id": "",
        "job_id": "job-1@local",
        "epoch": 1,
        "setup": None,
        "command": "true",
        "cpu_milli": 1000,
        "memory_bytes": 1 << 28,
        "disk_bytes": 1 << 28,
        "shm_bytes": 1 << 20,
        "log_bytes_max": 1 << 20,
        "max_duration_seconds": 1.0,
    }
    return RunSpec(**fields | changes)


def built(**changes: Any) -> tuple[list[str], wall.Job]:
    arguments = bwrap.arguments(spec(**changes), scratch=AT.scratch, own_etc=AT.own_etc, scripts=AT.scripts)
    return wall.build(arguments, at=AT, runtime=CRUN)


def options(arguments: list[str], option: str, operands: int) -> set[tuple[str, ...]]:
    return {
        tuple(arguments[at + 1 : at + 1 + operands]) for at, each in enumerate(arguments) if each == option
    }


def test_every_place_of_the_job_lies_under_its_root() -> None:
    arguments, job = built(
        mounts=(Mount(source="/env", target="/env"),), inputs=(Mount(source="/d", target="/work/d"),)
    )
    binds = options(arguments, "--ro-bind", 2)
    assert {
        ("/usr", "/rootfs/usr"),
        ("/env", "/rootfs/env"),
        ("/d", "/rootfs/work/d"),
        ("/j", "/rootfs/job"),
    } <= binds
    assert {("/s/work", "/rootfs/work"), ("/s/tmp", "/rootfs/tmp")} <= options(arguments, "--bind", 2)
    assert job.writable == ["/tmp", "/var/tmp", "/work"]
    assert ("/rootfs",) in options(arguments, "--remount-ro", 1)


def test_the_jobs_secrets_are_for_the_runtime_and_not_for_the_wall() -> None:
    arguments, job = built(env={"TOKEN": "s3cret"})
    assert job.env["TOKEN"] == "s3cret"
    assert not any("s3cret" in each for each in arguments)


def test_devices_reach_the_container() -> None:
    arguments, job = built(device_nodes=("/dev/nvidia0",))
    assert ("/dev/nvidia0", "/devices/nvidia0") in options(arguments, "--dev-bind", 2)
    mounts = config(job, job_command(spec(), "run"))["mounts"]
    assert [each["source"] for each in mounts if each["destination"] == "/dev/nvidia0"] == [
        "/devices/nvidia0"
    ]


def test_what_is_not_known_is_an_error_and_not_dropped() -> None:
    with pytest.raises(ValueError, match="--cap-add can't be passed on"):
        wall.build(["--cap-add", "CAP_NET_RAW"], at=AT, runtime=CRUN)


@pytest.mark.parametrize("tier", ["crun", "runc", "gvisor"])
def test_a_job_has_no_capability_in_any_tier(tier: str) -> None:
    start = RUNTIMES[tier].start(spec(setup="true"), AT, CRUN)
    assert list(start.programs) == ["setup", "run"]
    for stage in start.programs:
        text = start.files[f"{stage}/config.json"]
        assert '"noNewPrivileges": true' in text
        assert '"bounding": []' in text
        assert "CAP_" not in text
