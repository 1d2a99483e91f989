"""Submit, follow, cancel, download, pay and verify, by the commands that a renter types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acceptance.conftest import Shell


def job_file(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def shown(perak: Shell, *arguments: str) -> dict[str, object]:
    reply = perak(*arguments, "--json")
    assert reply.returncode == 0, reply.stderr
    value: dict[str, object] = json.loads(reply.stdout)
    return value


def test_a_job_runs_and_its_receipt_verifies_offline(perak: Shell, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("silver\n")
    path = job_file(
        tmp_path,
        """
name: way
workdir: .
setup: echo made >made.txt
run: |
  cat data.txt made.txt
  echo "$GREETING"
  mkdir out && echo model >out/model.bin
env: {GREETING: "selamat"}
outputs: [out/]
""",
    )
    reply = perak("run", str(path))
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.startswith("silver\nmade\nselamat\n")

    job = shown(perak, "show", "way")
    assert job["state"] == "succeeded"
    (run,) = job["runs"]  # type: ignore[misc]
    assert float(run["cost"]) > 0

    downloaded = tmp_path / "results"
    assert perak("download", "way", str(downloaded)).returncode == 0
    assert (downloaded / "out" / "model.bin").read_text() == "model\n"

    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(shown(perak, "receipt", "show", run["receipt"])))
    offline = perak("receipt", "verify", str(receipt), PERAK_URL="http://127.0.0.1:1")
    assert offline.returncode == 0, offline.stdout + offline.stderr
    forged = json.loads(receipt.read_text())
    forged["receipt"]["cost_micros"] += 1
    receipt.write_text(json.dumps(forged))
    assert perak("receipt", "verify", str(receipt)).returncode != 0


def test_a_job_with_a_network_never_reaches_its_node_and_the_receipt_counts_the_try(
    perak: Shell, tmp_path: Path
) -> None:
    """The job even names the node's own address; what a proxy may dial is not the job's to decide."""
    path = job_file(
        tmp_path,
        """
name: out
run: |
  /usr/bin/python3 - <<'END'
  import os, urllib.error, urllib.request
  assert os.environ["HTTP_PROXY"].endswith(":3128")
  try:
      urllib.request.urlopen("http://10.0.0.1:9/", timeout=20)
  except urllib.error.HTTPError as error:
      print(error.code, error.read().decode().strip())
  END
network: {allow: ["10.0.0.1:9"]}
""",
    )
    reply = perak("run", str(path))
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.startswith("403 perak: 10.0.0.1 leads to no public address")

    (run,) = shown(perak, "show", "out")["runs"]  # type: ignore[misc]
    receipt = shown(perak, "receipt", "show", run["receipt"])["receipt"]
    assert receipt["network"] == {"sent_bytes": 0, "received_bytes": 0, "refused": 1}  # type: ignore[index]


def test_run_passes_on_the_exit_code_of_the_job(perak: Shell, tmp_path: Path) -> None:
    reply = perak("run", str(job_file(tmp_path, "name: fails\nrun: exit 7\n")))
    assert reply.returncode == 7
    assert shown(perak, "show", "fails")["state"] == "failed"


def test_a_detached_job_is_followed_and_cancelled(perak: Shell, tmp_path: Path) -> None:
    path = job_file(tmp_path, "name: long\nrun: |\n  echo begun\n  sleep 600\n")
    job = shown(perak, "run", str(path), "--detach")
    identity = str(job["id"])
    perak.until_logged(identity, "begun")
    assert perak("logs", identity).stdout == "begun\n"
    assert identity in json.dumps(shown(perak, "ps"))
    assert perak("cancel", identity).returncode == 0
    perak.until_state(identity, "cancelled")
    ended = shown(perak, "show", identity)
    assert float(str(ended["cost"])) >= 0
    assert float(str(ended["held"])) == 0


def test_followed_logs_arrive_while_the_job_runs(perak: Shell, tmp_path: Path) -> None:
    path = job_file(
        tmp_path,
        """
name: ticks
run: |
  touch waiting
  echo tick 1
  until [ -e go ]; do sleep 0.1; done
  echo tick 2
""",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "perak", "run", str(path)],
        env=perak.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ticks = (line for line in process.stdout if line.startswith("tick"))
    assert next(ticks) == "tick 1\n"  # the job goes no further before it is told to
    (waiting,) = perak.local.state_dir.glob("agent/runs/*/scratch/work/waiting")
    (waiting.parent / "go").touch()
    assert list(ticks) == ["tick 2\n"]
    assert process.wait() == 0


def test_ctrl_c_without_a_terminal_detaches_and_leaves_the_job_running(perak: Shell, tmp_path: Path) -> None:
    path = job_file(tmp_path, "name: stays\nrun: |\n  echo up\n  sleep 60\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "perak", "run", str(path)],
        env=perak.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert any(line == "up\n" for line in process.stdout)
    os.kill(process.pid, signal.SIGINT)
    process.wait(20)
    assert shown(perak, "show", "stays")["state"] == "running"
    perak("cancel", "stays")


def test_a_quote_names_what_fails(perak: Shell, tmp_path: Path) -> None:
    path = job_file(tmp_path, "name: big\nrun: x\nresources: {gpu: V100, gpu_count: 8}\n")
    quote = shown(perak, "quote", str(path))
    (offer,) = quote["offers"]  # type: ignore[misc]
    assert not offer["fits"]
    assert "gpu" in {misfit["dimension"] for misfit in offer["misfits"]}
    assert "trust" in str(quote["trust"])


def test_a_wrong_job_file_is_told_by_file_line_and_key(perak: Shell, tmp_path: Path) -> None:
    path = job_file(tmp_path, "name: typo\nrun: x\nresource: {cpu: 1}\n")
    reply = perak("run", str(path))
    assert reply.returncode != 0
    assert "job.yaml" in reply.stderr
    assert "3" in reply.stderr
    assert "resources" in reply.stderr


def test_jobs_run_side_by_side(perak: Shell, tmp_path: Path) -> None:
    path = job_file(tmp_path, "name: side\nrun: until [ -e go ]; do sleep 0.05; done\n")
    ids = [str(shown(perak, "run", str(path), "--detach")["id"]) for _ in range(2)]
    for job in ids:  # neither ends before it is told to
        perak.until_state(job, "running")
    for job in ids:
        (run,) = perak.until_state(job, "running").runs
        (perak.local.state_dir / "agent" / "runs" / run.id / "scratch" / "work" / "go").touch()
    for job in ids:
        perak.until_state(job, "succeeded")


@pytest.mark.parametrize(
    "what", [("node", "ls"), ("offer", "ls"), ("wallet", "show"), ("key", "ls"), ("ps", "-a")]
)
def test_lists_are_shown_to_people_and_to_programs(perak: Shell, what: tuple[str, ...]) -> None:
    people = perak(*what)
    assert people.returncode == 0, people.stderr
    assert people.stdout.strip()
    programs = perak(*what, "--json")
    assert json.loads(programs.stdout)
