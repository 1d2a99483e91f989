"""kill -9 of every part while a job runs, one after the other: the job does not notice, or is run again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from acceptance.faults.faults import (
    check_books,
    counting,
    ended,
    finish,
    is_whole,
    job_pid,
    last_tick,
    run_folder,
    shim_pid,
    until,
    up,
)

Healed = Callable[[str, float], None]


def test_kill_9_of_every_part_in_turn(state_dir: Path, healed: Healed) -> None:
    """The first three leave the job alone; the shim's death costs one attempt, the job's own is its end."""
    with up(state_dir, "--fund", "10") as perak:
        agent_dir = state_dir / "agent"
        job = perak.client.submit(counting("survivor"))
        followed = perak.follow(job.id)
        followed.see(2)
        (run,) = perak.client.job(job.id).runs
        shim = shim_pid(agent_dir, run.id)
        for part in ("agent", "database", "database's backend", "exchange"):
            perak.kill(part)
            began_at = time.monotonic()
            written = last_tick((run_folder(agent_dir, run.id) / "log").read_bytes())
            followed.see(written + 1)  # written after the kill, and shown all the same
            healed(f"kill -9 of the {part}, the log goes on", time.monotonic() - began_at)
            assert shim_pid(agent_dir, run.id) == shim
        finish(agent_dir, run.id)
        done = ended(perak.client, job.id)
        assert (done.state, done.attempts) == ("succeeded", 1), done
        until(lambda: followed.ended, "the follower's end")
        assert is_whole(log := b"".join(perak.client.logs(job.id)))
        assert followed.shown == {1: log}
        assert not followed.taken_back

        again = perak.client.submit(counting("again"))
        followed = perak.follow(again.id)
        followed.see(2)
        os.kill(shim_pid(agent_dir, perak.client.job(again.id).runs[0].id), signal.SIGKILL)
        began_at = time.monotonic()
        followed.see(1, attempt=2)
        healed("kill -9 of a shim, the job runs again", time.monotonic() - began_at)
        finish(agent_dir, perak.client.job(again.id).runs[1].id)
        done = ended(perak.client, again.id)
        assert (done.state, done.attempts) == ("succeeded", 2), done
        assert [(run.state, run.cause) for run in done.runs] == [("exited", "sandbox"), ("exited", "exited")]
        assert b"".join(perak.client.logs(again.id, attempt=1)).startswith(followed.shown[1])
        assert is_whole(b"".join(perak.client.logs(again.id)))

        alone = perak.client.submit(counting("alone"))
        perak.follow(alone.id).see(2)
        os.kill(job_pid(agent_dir, perak.client.job(alone.id).runs[0].id), signal.SIGKILL)
        began_at = time.monotonic()
        done = ended(perak.client, alone.id)
        healed("kill -9 of a job, it is settled", time.monotonic() - began_at)
        assert (done.state, done.attempts) == ("failed", 1), "a job's own death is not repeated"
        assert done.runs[0].cause == "signal"
        check_books(perak.database)
