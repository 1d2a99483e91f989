"""The second demonstration: two nodes, a training job on one of them, and its plug is pulled.

`make unplug` calls it; another job named `unplug`, which prints `epoch` when it is at work, may be given as
an argument. Every process of the node that has the job is killed at once, as a power cut would;
the exchange misses its heartbeats, and the job goes on at the other node. Both attempts have a receipt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from stage import PERAK, ROOT, perak, perak_json, perak_up, say, state_folder, verify_receipt

from perak import Client
from perak.client.config import Target
from perak.wire import api

JOB = ROOT / "examples" / "train-digits" / "unplug.yaml"
NODES = {"old-card-in-berlin": "DE", "old-card-in-oslo": "NO"}
OPEN_SECONDS_MAX = 120
WATCH_SECONDS = 0.5
SEEN_SECONDS = 1
"""So long the training is watched before the plug is pulled."""


def main(job: Path = JOB) -> int:
    state_dir = state_folder("perak-unplug")
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(perak_up(state_dir, "--no-agent"))
        say(f"An exchange is up at {environment['PERAK_URL']}. Two machines join it.")
        invite = perak_json(environment, "node", "invite", "--uses", str(len(NODES)))["token"]
        for name in NODES:
            stack.enter_context(_node(state_dir, name, invite, environment))
        _until_open(environment)
        perak(environment, "offer", "ls")
        say("A training job, on whichever is cheaper.")
        pulled: list[str] = []
        threading.Thread(target=_pull_the_plug, args=(environment, state_dir, pulled), daemon=True).start()
        code = perak(environment, "run", str(job))
        runs = perak_json(environment, "show", "unplug")["runs"]
        say(f"It took {len(runs)} attempts; the receipt of the one that finished:")
        for run in runs:
            print(f"attempt {run['attempt']}: {run['state']}, {run.get('cause')}, {run.get('cost')}")
        path = ROOT / ".perak-demo" / "unplug-receipt.json"
        code = verify_receipt(environment, runs[-1]["receipt"], path) or code
        for name in pulled:
            say(f"The power of {name} comes back: it clears away what it had, and offers itself again.")
            stack.enter_context(_node(state_dir, name, invite, environment))
            _until_open(environment)
            perak(environment, "node", "ls")
        return code


@contextlib.contextmanager
def _node(state_dir: Path, name: str, invite: str, environment: dict[str, str]) -> Iterator[None]:
    folder = state_dir / name
    folder.mkdir(exist_ok=True)
    options = {"--exchange": environment["PERAK_URL"], "--invite": invite, "--state-dir": str(folder)}
    options |= {"--name": name, "--region": NODES[name], "--price-cpu": "0.01"}
    command = [PERAK, "agent", "--drain-on-exit", *(word for option in options.items() for word in option)]
    with (state_dir / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _until_open(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + OPEN_SECONDS_MAX
    with _client(environment) as client:
        while time.monotonic() < deadline:
            online = [each.state for each in client.nodes()] == ["online"] * len(NODES)
            if online and [each.state for each in client.offers()] == ["open"] * len(NODES):
                return
            time.sleep(WATCH_SECONDS)
    raise SystemExit("the nodes did not come online")


def _client(environment: dict[str, str]) -> Client:
    """The SDK, for what is only waited for: a command costs a third of a second of the processor."""
    return Client(target=Target(url=environment["PERAK_URL"], api_key=environment["PERAK_API_KEY"]))


def _pull_the_plug(environment: dict[str, str], state_dir: Path, pulled: list[str]) -> None:
    """Wait until the job trains, watch it a little, then kill all that runs in its node's folder."""
    with _client(environment) as client:
        while not (runs := _training(client)):
            time.sleep(WATCH_SECONDS)
    time.sleep(SEEN_SECONDS)
    name = runs[-1].node_name
    pulled.append(name)
    for pid in _working_in(state_dir / name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    say(f"*** The plug of {name} is pulled: agent, sandbox and job are gone. ***")


def _training(client: Client) -> list[api.RunView]:
    """The job's runs once the newest has printed something."""
    jobs = list(client.jobs(name="unplug", limit=1))
    if not jobs or jobs[0].state != "running":
        return []
    runs = client.job(jobs[0].id).runs
    return runs if b"epoch" in b"".join(client.logs(jobs[0].id)) else []


def _working_in(folder: Path) -> set[int]:
    """The processes whose command line names the folder, and all their descendants."""
    parents, found = {}, set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
