"""Limits bite, and the run's end names the one that did."""

from __future__ import annotations

import pytest
from sandbox_runs import MIB, Runs

from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.sandbox.spec import files_max


@pytest.fixture
def enforced(probed: tuple[Sandbox, TierReport]) -> tuple[str, ...]:
    return probed[1].enforced


def _needs(limit: str, enforced: tuple[str, ...]) -> None:
    if limit not in enforced:
        pytest.skip(f"{limit} can't be enforced on this machine")


def test_every_limit_is_either_enforced_or_explained(probed: tuple[Sandbox, TierReport]) -> None:
    report = probed[1]
    assert report.tier == "bubblewrap"
    assert set(report.enforced).isdisjoint(report.unenforced)
    assert {"privileges", "uid", "filesystem", "processes", "network"} <= set(report.enforced)
    assert all(report.unenforced.values())


def test_stop_lets_the_job_clean_up(runs: Runs) -> None:
    run_id = runs.start("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    runs.until_logged(run_id, "ready")
    runs.sandbox.stop(run_id, reason="cancelled by the renter", grace_seconds=10)
    status = runs.until(run_id, lambda status: status.state == "exited")
    assert (status.cause, status.exit_code, status.detail) == ("stopped", 7, "cancelled by the renter")
    assert runs.log(run_id).endswith("bye\n")


def test_stop_reaches_the_program_behind_the_shell(runs: Runs) -> None:
    inner = 'trap "echo saved; exit 0" TERM; echo ready; while :; do sleep 0.05; done'
    run_id = runs.start(f"sh -c '{inner}'\necho after")
    runs.until_logged(run_id, "ready")
    runs.sandbox.stop(run_id, reason="r", grace_seconds=10)
    runs.until(run_id, lambda status: status.state == "exited")
    assert "saved" in runs.log(run_id)


def test_a_job_that_refuses_to_die_is_killed_after_the_grace(runs: Runs) -> None:
    run_id = runs.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    runs.until_logged(run_id, "ready")
    runs.sandbox.stop(run_id, reason="r", grace_seconds=0.2)
    status = runs.until(run_id, lambda status: status.state == "exited")
    assert (status.cause, status.signal) == ("stopped", 9)


def test_max_duration_ends_the_run(runs: Runs) -> None:
    status, _ = runs.run(
        "trap '' TERM; while :; do sleep 0.05; done", max_duration_seconds=0.3, grace_seconds=0.1
    )
    assert status.cause == "max_duration"
    assert "0.3 s" in (status.detail or "")


def test_too_much_memory_is_told_as_such(runs: Runs, enforced: tuple[str, ...]) -> None:
    _needs("memory", enforced)
    status, _ = runs.run("head -c 200M /dev/zero | tail -c 200M >/dev/null", memory_bytes=32 * MIB)
    assert status.cause == "oom"
    assert status.memory_peak_bytes is not None
    assert status.memory_peak_bytes <= 32 * MIB


def test_shared_memory_is_capped(runs: Runs) -> None:
    _, log = runs.run("head -c 8M /dev/zero > /dev/shm/x || echo full", shm_bytes=MIB)
    assert "full" in log.splitlines()[-1]


def test_a_fork_bomb_stays_small(runs: Runs, enforced: tuple[str, ...]) -> None:
    _needs("pids", enforced)
    run_id = runs.start("f() { f | f & }; echo go; f; sleep 30", pids_max=40)
    runs.until_logged(run_id, "go")
    assert len(runs.sandbox.job_pids(run_id)) <= 40
    runs.sandbox.stop(run_id, reason="r", grace_seconds=0)
    runs.until(run_id, lambda status: status.state == "exited")
    assert runs.sandbox.job_pids(run_id) == set()


@pytest.mark.parametrize("place", ["/work", "/tmp", "/var/tmp"])
def test_a_full_scratch_is_told_as_such(runs: Runs, enforced: tuple[str, ...], place: str) -> None:
    _needs("disk", enforced)
    status, _ = runs.run(f"head -c 40M /dev/zero > {place}/x")
    assert status.cause == "disk_full"


def test_a_scratch_full_of_files_is_told_as_such(runs: Runs, enforced: tuple[str, ...]) -> None:
    _needs("inodes", enforced)
    status, _ = runs.run("i=0; while :; do i=$((i+1)); : > /tmp/$i; done")
    assert status.cause == "disk_full"
    assert f"all {files_max(16 * MIB)}" in (status.detail or "")


def test_the_asked_disk_is_really_there(runs: Runs) -> None:
    status, log = runs.run("head -c 16M /dev/zero > x", disk_bytes=16 * MIB)
    assert status.exit_code == 0, log


def test_cpu_is_held_to_its_share(runs: Runs, enforced: tuple[str, ...]) -> None:
    _needs("cpu", enforced)
    status, _ = runs.run("timeout 1 sh -c 'while :; do :; done' || true", cpu_milli=200)
    assert status.cpu_seconds is not None
    assert status.cpu_seconds < 0.5


def test_a_log_that_is_written_too_fast_waits_and_loses_nothing(runs: Runs) -> None:
    rate, burst, size = 512 * 1024, 64 * 1024, 700_000
    status, log = runs.run(
        f"head -c {size} /dev/zero | tr '\\0' x", log_bytes_per_second=rate, log_burst_bytes=burst
    )
    assert status.exit_code == 0
    assert log == "x" * size
    assert status.ended_at is not None
    assert status.started_at is not None
    in_pipe = 64 * 1024 + 256 * 1024  # what the pipe holds, and one read that may overdraw
    assert status.ended_at - status.started_at >= (size - burst - in_pipe) / rate
