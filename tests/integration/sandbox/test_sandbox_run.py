"""What a job meets in the sandbox and how its end is told."""

from __future__ import annotations

import os

import pytest
from sandbox_runs import MIB, Runs

from perak.agent.sandbox import Mount, Sandbox, TierReport


def test_output_and_end_of_a_trivial_run(runs: Runs) -> None:
    status, log = runs.run("echo hi; echo there >&2")
    assert log == "hi\nthere\n"
    assert (status.state, status.exit_code, status.cause) == ("exited", 0, "exited")
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.started_at <= status.ended_at
    assert status.log_bytes == len(log)


def test_cpu_and_memory_are_measured(runs: Runs, probed: tuple[Sandbox, TierReport]) -> None:
    if "memory" not in probed[1].enforced:
        pytest.skip("no control groups here")
    status, _ = runs.run(
        "timeout 0.3 sh -c 'while :; do :; done' || true; head -c 20M /dev/zero | tail -c 20M >/dev/null"
    )
    assert status.cpu_seconds is not None
    assert 0.05 < status.cpu_seconds < 2
    assert status.memory_peak_bytes is not None
    assert status.memory_peak_bytes > 15 * MIB


@pytest.mark.parametrize(
    ("command", "code", "cause", "signal"),
    [
        ("exit 3", 3, "exited", None),
        ("false; echo not reached", 1, "exited", None),
        ("kill -SEGV $$", 139, "signal", 11),
        ("sh -c 'kill -KILL $$'", 137, "signal", 9),
    ],
)
def test_the_exit_code_is_the_jobs_own(
    runs: Runs, command: str, code: int, cause: str, signal: int | None
) -> None:
    status, log = runs.run(command)
    assert (status.exit_code, status.cause, status.signal) == (code, cause, signal)
    assert "not reached" not in log


def test_environment_work_folder_and_mounts(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> None:
    status, log = runs.run(
        'pwd; echo "$HOME $GREETING $PERAK_JOB_ID"; echo "$PATH"; head -1 /data/alternatives/README; id -un',
        env={"GREETING": "two words"},
        mounts=(Mount(source="/etc/alternatives", target="/data/alternatives"),),
        path_prefix=("/env/bin",),
    )
    assert status.exit_code == 0
    lines = log.splitlines()
    assert lines[:2] == ["/work", "/work two words job-1@local"]
    assert lines[2].startswith("/env/bin:")
    assert lines[-1] == "perak"


def test_the_agents_environment_stays_outside(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERAK_API_KEY", "secret")
    _, log = runs.run("env; tr '\\0' '\\n' </proc/1/environ")
    assert "secret" not in log


def test_the_job_gets_what_was_put_into_its_work_folder_and_leaves_its_output_there(runs: Runs) -> None:
    spec = runs.spec("cat in/data.txt; echo more >> in/data.txt; echo result > out.txt")
    work = runs.sandbox.prepare(spec).work
    (work / "in").mkdir()
    (work / "in" / "data.txt").write_text("given\n")
    (work / "in" / "link").symlink_to("/etc/shadow")
    shadow = os.stat("/etc/shadow")
    runs.sandbox.start(spec.run_id)
    runs.until(spec.run_id, lambda status: status.state == "exited")
    assert runs.log(spec.run_id) == "given\n"
    assert (work / "out.txt").read_text() == "result\n"
    assert (work / "in" / "data.txt").read_text() == "given\nmore\n"
    assert os.stat("/etc/shadow").st_uid == shadow.st_uid


def test_setup_comes_first_in_the_same_folder(runs: Runs) -> None:
    status, log = runs.run("cat made", setup="echo from-setup > made")
    assert (status.exit_code, log) == (0, "from-setup\n")


def test_a_failing_setup_is_named_and_the_command_does_not_run(runs: Runs) -> None:
    status, log = runs.run("echo never", setup="echo first; exit 4")
    assert (status.cause, status.exit_code, log) == ("setup", 4, "first\n")


def test_a_mount_that_is_not_there_is_the_sandboxs_failure(runs: Runs) -> None:
    status, _ = runs.run("true", mounts=(Mount(source="/no/such/folder", target="/data"),))
    assert status.cause == "sandbox"
    assert "/no/such/folder" in (status.detail or "")


def test_what_the_job_left_in_the_background_ends_with_it(runs: Runs) -> None:
    status, log = runs.run("(sleep 30; echo late) & echo done")
    assert (status.exit_code, log) == (0, "done\n")
    assert status.ended_at is not None
    assert status.started_at is not None
    assert status.ended_at - status.started_at < 5


def test_the_log_ends_at_its_limit_and_says_so(runs: Runs) -> None:
    status, log = runs.run("head -c 300000 /dev/zero | tr '\\0' x; echo end", log_bytes_max=1000)
    assert status.exit_code == 0
    assert log.startswith("x" * 1000 + "\n")
    assert "limit of 1000 bytes" in log.splitlines()[-1]
    assert len(log) < 1200


def test_the_log_is_read_in_pieces_while_the_job_runs(runs: Runs) -> None:
    run_id = runs.start("echo first; sleep 30")
    runs.until_logged(run_id, "first")
    assert runs.sandbox.read_log(run_id, 1, 3) == b"irs"
    assert runs.sandbox.read_log(run_id, 6, 100) == b""
    assert runs.sandbox.status(run_id).state == "running"


def test_every_run_is_started_once(runs: Runs) -> None:
    run_id = runs.start("sleep 30")
    with pytest.raises(RuntimeError, match="started already"):
        runs.sandbox.start(run_id)
    with pytest.raises(RuntimeError, match="still runs"):
        runs.sandbox.release(run_id)
    with pytest.raises(FileExistsError):
        runs.sandbox.prepare(runs.sandbox.load(run_id))


def test_the_spec_is_found_again(runs: Runs) -> None:
    spec = runs.spec("true", env={"A": "ä\n"}, mounts=(Mount(source="/usr", target="/x"),), setup="true")
    runs.sandbox.prepare(spec)
    assert runs.sandbox.load(spec.run_id) == spec
    assert runs.sandbox.status(spec.run_id).state == "prepared"
