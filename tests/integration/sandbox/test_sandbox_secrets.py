"""Secrets reach the job in every tier, in memory only, and its log without them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from sandbox_runs import MIB, Runs
from test_sandbox_tiers import MEMORY, tier

from perak.agent.sandbox import Sandbox, SecretUse

__all__ = ["tier"]

TOKEN, KEY = b"swordfish-8f3a", b"-----BEGIN-----\nc2VjcmV0LW1hdGVy\n\x00\xff\n"
USES = (SecretUse(name="TOKEN", kind="env"), SecretUse(name="KEY", kind="file"))
VALUES = {"TOKEN": TOKEN, "KEY": KEY, "UNASKED": b"not-for-this-run"}

LOOK = r"""
test "$(printf %s "$TOKEN" | wc -c)" = 14 && echo token is there
test "$(wc -c < /run/secrets/KEY)" = 36 && echo key is there
find /run/secrets/KEY -printf '%m %y\n'
test "$(stat -f -c %T /run/secrets)" = tmpfs && echo in memory
echo /run/secrets/*
test -z "$UNASKED" && echo no other
echo more >> /run/secrets/KEY || echo not writable
touch /run/secrets/new || echo no new ones
echo "the token is $TOKEN."
printf swordf; sleep 0.2; echo ish-8f3a
cat /run/secrets/KEY
printf %s "x$TOKEN" | base64
"""


def start(runs: Runs, command: str, tier: str | None, *, setup: str | None = None) -> str:
    spec = runs.spec(
        command, tier=tier, secrets=USES, setup=setup, memory_bytes=MEMORY.get(tier or "", 128 * MIB)
    )
    runs.sandbox.prepare(spec)
    runs.sandbox.start(spec.run_id, secrets=VALUES)
    return spec.run_id


def test_a_crash_shows_nobody_the_jobs_memory(runs: Runs) -> None:
    """A limit of 0 would stop files alone, not the node's program for crash reports (fs/coredump.c)."""
    _, log = runs.run("grep core /proc/self/limits; kill -SEGV $$")
    assert log.split()[-3:-1] == ["1", "1"], log


def test_a_job_has_its_secrets_and_its_log_has_not(runs: Runs, tier: str) -> None:
    run = start(runs, LOOK, tier, setup='test -n "$TOKEN" && test -s /run/secrets/KEY && echo "setup $TOKEN"')
    status = runs.until(run, lambda status: status.state in ("exited", "lost"))
    log = runs.sandbox.read_log(run, 0, MIB)
    assert (status.cause, status.exit_code) == ("exited", 0), log
    text = log.decode(errors="replace")
    for line in ("token is there", "key is there", "400 f", "no other", "not writable",
                 "no new ones", "the token is **************.", "setup **************"):  # fmt: skip
        assert line in text, text
    assert "in memory" in text or tier == "gvisor"  # whose own kernel calls every folder the same
    for secret in (TOKEN, *KEY.split(b"\n")[:2], b"dvcmRmaXNoLThmM2"):
        assert secret not in log
    assert status.detail is None
    assert_nowhere_on_disk(runs.sandbox, run)


def test_secrets_are_in_no_file_and_no_arguments_while_the_job_runs(runs: Runs) -> None:
    run = start(runs, "sleep 30", None)
    try:
        runs.until(run, lambda status: status.state == "running" and bool(runs.sandbox.job_pids(run)))
        for each in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (each / "cmdline").read_bytes()
                # The same search in another worker's test names what it looks for.
                assert TOKEN not in arguments or arguments.startswith(b"grep\0"), each
            except OSError:
                continue
        assert_nowhere_on_disk(runs.sandbox, run)
    finally:
        runs.sandbox.stop(run, reason="done", grace_seconds=0)
        runs.until(run, lambda status: status.state != "running")


def test_a_run_that_lacks_its_secret_does_not_start(runs: Runs) -> None:
    spec = runs.spec("true", secrets=USES)
    runs.sandbox.prepare(spec)
    with pytest.raises(RuntimeError, match="lacks the secret KEY"):
        runs.sandbox.start(spec.run_id, secrets={"TOKEN": TOKEN})
    runs.sandbox.start(spec.run_id, secrets=VALUES)
    assert runs.until(spec.run_id, lambda status: status.state == "exited").exit_code == 0


def test_what_looks_like_a_secrets_beginning_is_shown_in_time(runs: Runs) -> None:
    run = start(runs, "printf 'login: sw'; sleep 20", None)
    runs.until_logged(run, "login: sw")
    runs.sandbox.stop(run, reason="done", grace_seconds=0)
    runs.until(run, lambda status: status.state == "exited")


def test_the_shim_leaves_no_dump(runs: Runs) -> None:
    run = start(runs, "sleep 20", None)
    runs.until(run, lambda status: status.started_at is not None)
    pid = json.loads((runs.sandbox.folder(run) / "shim.json").read_text())["pid"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    line = next(each for each in limits.splitlines() if each.startswith("Max core file size"))
    assert line.split()[4:6] == ["1", "1"]
    runs.sandbox.stop(run, reason="done", grace_seconds=0)
    runs.until(run, lambda status: status.state == "exited")


def assert_nowhere_on_disk(sandbox: Sandbox, run: str) -> None:
    folder = os.fspath(sandbox.folder(run))
    found = subprocess.run(
        ["grep", "-r", "-l", "-a", "-e", TOKEN.decode(), "-e", "c2VjcmV0LW1hdGVy", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
