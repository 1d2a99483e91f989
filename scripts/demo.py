"""The demonstration: a whole Perak on this machine runs a real training job and shows its receipt.

`make demo` calls it. The state is kept beside the system's, so that a second run reuses the database and the
job's Python environment. Nothing is left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "examples" / "train-digits" / "job.yaml"
PERAK = Path(sys.executable).with_name("perak")
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 30


def main() -> int:
    begin = time.monotonic()
    state_dir = _state_dir()
    outputs = ROOT / ".perak-demo"
    shutil.rmtree(outputs, ignore_errors=True)
    with _perak_up(state_dir) as url:
        found = json.loads((state_dir / "local.json").read_text())
        environment = {**os.environ, "PERAK_URL": url, "PERAK_API_KEY": found["api_key"]}
        _say(
            f"Perak is up at {url}: an exchange, PostgreSQL, and this machine as a node that offers its CPU."
        )
        _say("What would the job cost?")
        _perak(environment, "quote", str(JOB))
        _say("Run it: matched, sandboxed, metered, paid.")
        code = _perak(environment, "run", str(JOB))
        if code:
            return code
        _say(f"The model, downloaded to {outputs}:")
        _perak(environment, "download", "train-digits", str(outputs))
        job = _json(environment, "show", "train-digits")
        receipt = _json(environment, "receipt", "show", job["runs"][-1]["receipt"])
        path = outputs / "receipt.json"
        path.write_text(json.dumps(receipt))
        _say("The receipt, and its verification offline, against this exchange's own authority:")
        with urllib.request.urlopen(f"{url}/v1/exchange") as reply:  # noqa: S310  # our own loopback URL
            authority = json.load(reply)["ca_fingerprint"]
        _perak(environment, "receipt", "show", job["runs"][-1]["receipt"])
        code = _perak(environment, "receipt", "verify", str(path), "--fingerprint", authority)
    _say(f"Done in {time.monotonic() - begin:.1f} s; nothing is left running. `perak up` starts it for good.")
    return code


def _state_dir() -> Path:
    """As root below /var/lib, where the sandbox's own users can pass; else in the user's state folder."""
    if "PERAK_DEMO_STATE_DIR" in os.environ:
        folder = Path(os.environ["PERAK_DEMO_STATE_DIR"])
    elif os.geteuid() == 0:
        folder = Path("/var/lib/perak-demo")
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "perak-demo"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _perak_up(state_dir: Path) -> Iterator[str]:
    """`perak up` until the block ends; its URL."""
    log = state_dir / "demo.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [PERAK, "up", "--state-dir", str(state_dir), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield _ready(process, log, state_dir)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _ready(process: subprocess.Popen[str], log: Path, state_dir: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS_MAX
    for line in process.stdout:
        if "ready" in line:
            url: str = json.loads((state_dir / "local.json").read_text())["url"]
            return url
        if time.monotonic() > deadline:
            break
    raise SystemExit(f"perak up did not get ready; its log is {log}:\n{log.read_text()[-2000:]}")


def _perak(environment: dict[str, str], *arguments: str) -> int:
    print(f"\033[2m$ perak {' '.join(_short(a) for a in arguments)}\033[0m", flush=True)
    return subprocess.run([PERAK, *arguments], env=environment, check=False).returncode


def _json(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    reply = subprocess.run([PERAK, *arguments, "--json"], env=environment, check=True, stdout=subprocess.PIPE)
    value: dict[str, object] = json.loads(reply.stdout)
    return value


def _short(argument: str) -> str:
    return os.path.relpath(argument) if argument.startswith("/") else argument


def _say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
