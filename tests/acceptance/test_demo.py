"""`make demo` and `make unplug`: from a quote to receipts that verify; nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmarks.local import quiet_environment

from acceptance.conftest import ROOT

DEMO_SECONDS_MAX = UNPLUG_SECONDS_MAX = 200
"""Only a failing test takes so long; a machine that is busy with others takes a minute."""


@pytest.mark.timeout(DEMO_SECONDS_MAX + 60)
def test_the_demo_trains_a_model_and_its_receipt_verifies(state_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env=environment(state_dir),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = re.findall(r"^test accuracy ([0-9.]+)%", done.stdout, re.MULTILINE)
    assert float(accuracy) >= 95
    assert "The receipt is genuine" in done.stdout
    results = ROOT / ".perak-demo" / "out"
    assert (results / "model.joblib").stat().st_size > 1000
    assert json.loads((results / "metrics.json").read_text())
    assert not left_running(state_dir)


UNPLUG_JOB = """
name: unplug
run: |
  echo epoch 1
  until [ -e go ]; do sleep 0.1; done
disconnect_grace: 0s
limits: {max_price: 0.40/h, max_cost: 1.00, max_duration: 30m}
retry: {max_attempts: 3, on: [node_lost]}
"""


@pytest.mark.timeout(UNPLUG_SECONDS_MAX + 60)
def test_a_job_goes_on_at_another_node_when_the_plug_of_its_own_is_pulled(
    state_dir: Path, tmp_path: Path
) -> None:
    """With a job that ends when it is told to, in the place of the training that test_demo sees anyway."""
    (tmp_path / "job.yaml").write_text(UNPLUG_JOB)
    command = [sys.executable, str(ROOT / "scripts" / "unplug.py"), str(tmp_path / "job.yaml")]
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=environment(state_dir) | {"PERAK_BEAT_SECONDS": "0.5", "PERAK_LOST_AFTER_SECONDS": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        # As Ctrl-C would, so that it ends what it started.
        timer = threading.Timer(UNPLUG_SECONDS_MAX, process.send_signal, (signal.SIGINT,))
        timer.start()
        for line in process.stdout:
            said.append(line)
            if (pulled := re.search(r"The plug of (\S+) is pulled", line)) is not None:
                threading.Thread(target=tell_to_go, args=(state_dir, pulled[1]), daemon=True).start()
        timer.cancel()
    text = "".join(said)
    assert process.returncode == 0, text
    assert "attempt 1: fenced" in text
    assert "attempt 2: exited, exited" in text
    assert "The receipt is genuine" in text
    assert text.rstrip().splitlines()[-2].split()[2:4] == ["online", "accepting"], text
    assert text.rstrip().splitlines()[-1].split()[2:4] == ["online", "accepting"], text
    assert not left_running(state_dir)


def tell_to_go(state_dir: Path, pulled: str) -> None:
    """Tell the job to end, as soon as it is on the node that still has power."""
    while not (
        works := [
            each for each in state_dir.glob("old-card-*/runs/*/scratch/work") if pulled not in str(each)
        ]
    ):
        time.sleep(0.05)
    (works[0] / "go").touch()


def environment(state_dir: Path) -> dict[str, str]:
    own = {"PERAK_DEMO_STATE_DIR": str(state_dir), "PERAK_TIERS": "bubblewrap", "COLUMNS": "120"}
    return {**quiet_environment(), **own}


def left_running(state_dir: Path) -> list[str]:
    """Command lines of processes that still work on the state folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(state_dir) in command:
                found.append(command)
    return found
