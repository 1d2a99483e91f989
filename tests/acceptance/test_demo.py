"""`make demo`: a real training run, from the package index to a receipt that verifies; nothing is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.local import quiet_environment

from acceptance.conftest import ROOT


def test_the_demo_trains_a_model_and_its_receipt_verifies(state_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env={**quiet_environment(), "PERAK_DEMO_STATE_DIR": str(state_dir), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=110,
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
