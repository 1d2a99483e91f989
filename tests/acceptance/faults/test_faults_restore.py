"""The exchange's disk is lost; a back-up comes to life, and the node that goes on knows more than it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.local import processes_below, quiet_environment

from acceptance.faults.faults import (
    check_books,
    counting,
    ended,
    finish,
    rows,
    run_folder,
    shim_pid,
    until,
    up,
)
from perak.wire.receipts import verify_receipt

Healed = Callable[[str, float], None]


def perak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perak", *arguments]
    return subprocess.run(
        command, env=quiet_environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_node_whose_journal_is_ahead_of_the_restored_exchange(state_dir: Path, healed: Healed) -> None:
    """What was paid since is settled by the receipts that others hold; what only the node knows of ends."""
    copy, held, agent_dir = state_dir / "copy", state_dir / "held", state_dir / "agent"
    held.mkdir()
    with up(state_dir, "--fund", "10") as before:
        client = before.client
        paid, lost = (client.submit(counting(name)).id for name in ("paid", "lost"))
        for job in (paid, lost):
            before.follow(job).see(8)
        evidence = "select id from run where evidence_until is not null"
        until(lambda: len(rows(before.database, evidence)) == 2, "evidence of both runs")
        taken = perak("backup", str(copy), "--state-dir", str(state_dir))
        assert taken.returncode == 0, taken.stderr

        # Since the back-up: a run of it ends and is paid, and two begin that it has never heard of.
        finish(agent_dir, client.job(paid).runs[0].id)
        done = ended(client, paid)
        late = ended(client, client.submit({"name": "late", "run": "true"}).id)
        unknown = client.submit(counting("unknown")).id
        before.follow(unknown).see(2)
        orphan = client.job(unknown).runs[0].id
        for run in (done.runs[0], late.runs[0]):
            (held / f"{run.id}.json").write_text(client.receipt(run.receipt).model_dump_json())
        shims = [shim_pid(agent_dir, run) for run in (client.job(lost).runs[0].id, orphan)]
        parts = [pid for pid in processes_below(before.process.pid) if pid not in _below(shims)]
        for pid in [before.process.pid, *parts]:
            _kill(pid)
    for name in ("postgres", "exchange"):
        shutil.rmtree(state_dir / name)
    assert all(Path(f"/proc/{shim}").exists() for shim in shims)

    began_at = time.monotonic()
    back = perak("restore", str(copy), "--state-dir", str(state_dir), "--receipts", str(held))
    assert "1 runs settled by receipts, 1 fenced" in back.stdout, back.stdout + back.stderr
    (wrong,) = [line for line in back.stdout.splitlines() if line.startswith("WRONG")]
    assert late.runs[0].id in wrong
    assert back.returncode == 1, "a payout that the back-up does not know"
    with up(state_dir) as after:
        client = after.client
        again = until(
            lambda: (runs := client.job(lost).runs)[1:] and runs[1].state == "running" and runs[1], "a run"
        )
        healed("a restored exchange, the job that was live runs again", time.monotonic() - began_at)
        until(lambda: not any(Path(f"/proc/{shim}").exists() for shim in shims), "the end of the stale runs")
        until(lambda: not run_folder(agent_dir, orphan).exists(), "that the run nobody knows is cleared away")
        finish(agent_dir, again.id)
        assert ended(client, lost).state == "succeeded"
        assert ended(client, client.submit({"name": "new", "run": "true"}).id).state == "succeeded"
        authority = rows(after.database, "select ca_certificate from exchange")[0]["ca_certificate"]
        for receipt in client.receipts():
            verified = verify_receipt(
                client.receipt(receipt.id).model_dump_json(), trusted_fingerprint=_fingerprint(authority)
            )
            assert verified.trusted, [check for check in verified.checks if not check.passed]
        restored = client.job(paid)
        assert (restored.state, restored.cost) == ("succeeded", done.cost)
        check_books(after.database)


def _below(pids: list[int]) -> set[int]:
    return {each for pid in pids for each in (pid, *processes_below(pid))}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def _fingerprint(pem: str) -> str:
    from perak.wire.identity import fingerprint

    return fingerprint(pem.encode())
