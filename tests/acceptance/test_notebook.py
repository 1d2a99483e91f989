"""The notebook example in a real browser: Jupyter in a job, seen through a forwarded port."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.conftest import ROOT, Shell

START_SECONDS = 150.0
"""Some hundred packages from the index, unless the machine has them, and Jupyter's own start."""
BROWSER_SECONDS = 120.0
PAGE_MILLISECONDS = 20_000
"""Of the page's own time, for the hundred requests of JupyterLab; much less passes on a quick machine."""


@contextlib.contextmanager
def forwarded(perak: Shell, job: str) -> Iterator[str]:
    command = [sys.executable, "-m", "perak", "forward", job, "0:8888"]
    with subprocess.Popen(command, env=perak.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


@pytest.mark.timeout(300)
def test_a_notebook_in_a_job_opens_in_a_browser(perak: Shell, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine (apt install chromium)")
    if os.geteuid() != 0:
        pytest.skip("needs root: only root may put a process into another user's sandbox")
    reply = perak("run", "--detach", str(ROOT / "examples" / "notebook" / "job.yaml"))
    assert reply.returncode == 0, reply.stderr
    job = reply.stdout.strip()
    try:
        until = time.monotonic() + START_SECONDS
        while "is running at" not in (log := perak("logs", job).stdout):
            assert time.monotonic() < until, log
            time.sleep(0.5)
        with forwarded(perak, job) as url:
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
            options += [f"--virtual-time-budget={PAGE_MILLISECONDS}", "--dump-dom"]
            shown = subprocess.run(
                [chromium, *options, f"{url}/lab/tree/hello.ipynb"],
                capture_output=True, text=True, timeout=BROWSER_SECONDS, check=True,
            ).stdout  # fmt: skip
        assert "<title>hello.ipynb - JupyterLab</title>" in shown
        assert "PERAK_JOB_ID" in shown, "the notebook's own code is on the page"
    finally:
        perak("cancel", job)
