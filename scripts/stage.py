"""What the demonstrations share: a whole Perak that runs until a block ends, and its command line, shown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PERAK = Path(sys.executable).with_name("perak")
READY_SECONDS_MAX = 120
STOP_SECONDS_MAX = 30


def state_folder(name: str) -> Path:
    """As root below /var/lib, where the sandbox's own users can pass; else in the user's state folder."""
    if "PERAK_DEMO_STATE_DIR" in os.environ:
        folder = Path(os.environ["PERAK_DEMO_STATE_DIR"])
    elif os.geteuid() == 0:
        folder = Path("/var/lib") / name
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def perak_up(state_dir: Path, *options: str) -> Iterator[dict[str, str]]:
    """`perak up` until the block ends; the environment in which its command line finds it."""
    log = state_dir / "demo.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [PERAK, "up", "--state-dir", str(state_dir), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, log)
            found = json.loads((state_dir / "local.json").read_text())
            yield {**os.environ, "PERAK_URL": found["url"], "PERAK_API_KEY": found["api_key"]}
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[str], log: Path) -> None:
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS_MAX
    for line in process.stdout:
        if "ready" in line:
            return
        if time.monotonic() > deadline:
            break
    raise SystemExit(f"perak up did not get ready; its log is {log}:\n{log.read_text()[-2000:]}")


def perak(environment: dict[str, str], *arguments: str) -> int:
    """Run a command of Perak where people see it; its exit code."""
    shown(*arguments)
    return subprocess.run([PERAK, *arguments], env=environment, check=False).returncode


def perak_json(environment: dict[str, str], *arguments: str) -> Any:
    """What a command of Perak says with --json."""
    command = [PERAK, *arguments, "--json"]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def verify_receipt(environment: dict[str, str], receipt: str, path: Path) -> int:
    """Show a receipt, keep it at `path`, verify it offline against the exchange's own authority."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(perak_json(environment, "receipt", "show", receipt)))
    with urllib.request.urlopen(f"{environment['PERAK_URL']}/v1/exchange") as reply:  # noqa: S310  # loopback
        authority = json.load(reply)["ca_fingerprint"]
    perak(environment, "receipt", "show", receipt)
    return perak(environment, "receipt", "verify", str(path), "--fingerprint", authority)


def shown(*arguments: str) -> None:
    """Print a command as one would type it."""
    short = (os.path.relpath(each) if each.startswith("/") else each for each in arguments)
    print(f"\033[2m$ perak {' '.join(short)}\033[0m", flush=True)


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m", flush=True)
