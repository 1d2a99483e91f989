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
    is_whole,
    job_pid,
    last_tick,
    patiently,
    rows,
    run_folder,
    shim_pid,
    until,
    up,
)
from perak.wire.receipts import verify_receipt

Healed = Callable[[str, float], None]


def test_kill_9_of_every_part_in_turn(state_dir: Path, healed: Healed) -> None:
    """All during one job: four leave it alone, the shim's costs one attempt, and its own is its end."""
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

        os.kill(shim, signal.SIGKILL)
        began_at = time.monotonic()
        followed.see(1, attempt=2)
        healed("kill -9 of the shim, the job runs again", time.monotonic() - began_at)
        again = patiently(perak.client, job.id).runs[1]
        os.kill(job_pid(agent_dir, again.id), signal.SIGKILL)
        began_at = time.monotonic()
        done = ended(perak.client, job.id)
        healed("kill -9 of the job, it is settled", time.monotonic() - began_at)
        assert (done.state, done.attempts) == ("failed", 2), "a job's own death is not repeated"
        assert [(run.state, run.cause) for run in done.runs] == [("exited", "sandbox"), ("exited", "signal")]
        until(lambda: followed.ended, "the follower's end")
        assert not followed.taken_back
        for run in done.runs:
            log = b"".join(perak.client.logs(job.id, attempt=run.attempt))
            assert is_whole(log), "lines are lost or doubled"
            assert log == followed.shown[run.attempt]
            receipts = rows(perak.database, f"select id from receipt where run_id = '{run.id}'")
            assert [receipt["id"] for receipt in receipts] == [run.receipt]
            verified = verify_receipt(perak.client.receipt(run.receipt).model_dump_json())
            assert verified.valid, [check for check in verified.checks if not check.passed]
        check_books(perak.database)
        (sums,) = rows(perak.database, LEDGER)
        assert sums == {"balances": 0, "held": 0}


LEDGER = """
select coalesce(sum(case when credit = account.id then amount else -amount end), 0)::bigint as balances,
    (select coalesce(sum(pending), 0)::bigint from account) as held
from account join transfer on account.id in (debit, credit) and phase in ('single', 'post')
"""
"""All accounts together, and what is held: zero once every job has ended."""
