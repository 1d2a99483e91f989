"""The notebook example in a real browser: Jupyter in a job, used through a forwarded port."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from acceptance.conftest import ROOT, Shell

START_SECONDS = 150.0
"""Some hundred packages from the index, unless the machine has them, and Jupyter's own start."""
PAGE_SECONDS = 120.0
"""For the hundred requests of JupyterLab, the start of a kernel, and one cell; a quick machine takes five."""
POLL_SECONDS = 0.2
MESSAGE_BYTES_MAX = 1 << 24

RUN = """(() => {
    const shown = (each) => document.querySelector(each);
    const output = shown('.jp-OutputArea-output');
    if (output) return output.innerText;
    const idle = shown('.jp-Notebook-ExecutionIndicator[data-status=idle]');
    const run = shown('[data-command="notebook:run-cell-and-select-next"]');
    const cell = shown('.jp-CodeCell .jp-InputArea-editor');
    const kernel = shown('.jp-Dialog .jp-mod-accept');
    if (kernel) { kernel.click(); return ''; }
    if (idle && run && cell && !(Date.now() < window.runAgainAt)) {
        window.runAgainAt = Date.now() + 3000;
        for (const each of [cell, run]) each.dispatchEvent(new MouseEvent('mousedown', {bubbles: true}));
    }
    return '';
})()"""
"""What a person would do on the page: wait for the kernel, run the cell with code, and read what it says. The
page calls a kernel idle before it is connected, and a click then is lost: so it is clicked again."""


BODY = "document.title + document.body.innerText.slice(0, 2000)"


class Page:
    """A tab of the browser, by the DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command; what else is told meanwhile is passed over."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=PAGE_SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@contextlib.contextmanager
def browser(chromium: str, folder: Path) -> Iterator[Page]:
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    options += ["--remote-debugging-port=0", "--no-first-run", "about:blank"]
    with subprocess.Popen(
        [chromium, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until, found = time.monotonic() + PAGE_SECONDS, folder / "DevToolsActivePort"
            while not found.exists() or not found.read_text().strip():
                assert time.monotonic() < until, "the browser does not start"
                time.sleep(POLL_SECONDS)
            port = found.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PAGE_SECONDS) as listed:
                (tab, *_) = (each for each in json.load(listed) if each["type"] == "page")
            address = tab["webSocketDebuggerUrl"]
            with connect(address, proxy=None, max_size=MESSAGE_BYTES_MAX) as connection:
                yield Page(connection)
        finally:
            process.kill()


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
def test_a_notebook_in_a_job_runs_a_cell_in_a_browser(perak: Shell, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine (apt install chromium)")
    if os.geteuid() != 0:
        pytest.skip("needs root: only root may put a process into another user's sandbox")
    reply = perak("run", "--detach", str(ROOT / "examples" / "notebook" / "job.yaml"))
    assert reply.returncode == 0, reply.stderr
    job = reply.stdout.strip()
    try:
        perak.until_logged(job, "is running at", seconds=START_SECONDS)
        with forwarded(perak, job) as url, browser(chromium, tmp_path) as page:
            page.ask("Page.navigate", url=f"{url}/lab/tree/hello.ipynb")
            until, output = time.monotonic() + PAGE_SECONDS, ""
            while not output:
                output = page.ask("Runtime.evaluate", expression=RUN)["result"].get("value", "")
                assert time.monotonic() < until, page.ask("Runtime.evaluate", expression=BODY)["result"]
                time.sleep(POLL_SECONDS)
        assert job in output, "the kernel in the job ran the cell"
    finally:
        perak("cancel", job)
