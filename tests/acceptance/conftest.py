"""A whole Perak on this machine, started by its own command, for the tests of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.local import Local, perak_up, quiet_environment

from perak import Client
from perak.client.config import Target
from perak.wire import api

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 90
TEST_SECONDS_MAX = 300
PATIENCE_SECONDS = 60.0
"""Only a failing test waits so long."""
POLL_SECONDS = 0.05
KEPT = {"PERAK_RUNSC"}
"""What the other folders' tests need, which the same process may run after these."""


class Shell:
    """Types `perak …` as a user of one exchange would."""

    def __init__(self, local: Local) -> None:
        self.local = local

    def environment(self) -> dict[str, str]:
        return {
            **quiet_environment(),
            "PERAK_URL": self.local.url,
            "PERAK_API_KEY": self.local.api_key,
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def __call__(
        self, *arguments: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perak", *arguments],
            cwd=cwd,
            env={**self.environment(), **env},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def client(self) -> Client:
        """The SDK, for what is only waited for: each command costs a third of a second of the processor."""
        return Client(target=Target(url=self.local.url, api_key=self.local.api_key))

    def until_logged(self, job: str, text: str, *, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until the job has written that; its log so far."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while text not in (log := b"".join(client.logs(job)).decode()):
                assert time.monotonic() < deadline, (log, client.job(job))
                time.sleep(POLL_SECONDS)
        return log

    def until_state(self, job: str, state: str, *, seconds: float = PATIENCE_SECONDS) -> api.JobDetail:
        """Wait until the job is in that state; the job."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while (found := client.job(job)).state != state:
                assert time.monotonic() < deadline, found
                time.sleep(POLL_SECONDS)
        return found


@pytest.fixture(scope="session")
def local() -> Iterator[Local]:
    with pytest.MonkeyPatch.context() as patch:
        # Those that a test here asks for; each is attacked first, and most have tests of their own elsewhere.
        patch.setenv("PERAK_TIERS", "bubblewrap,crun")
        with perak_up("--fund", "100") as running:
            yield running


@pytest.fixture(scope="session")
def perak(local: Local) -> Shell:
    return Shell(local)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of these starts several processes, and a machine that is busy with others takes long for each."""
    for item in items:
        if "acceptance" in Path(item.path).parts:
            item.add_marker("acceptance")
            if "faults" not in item.path.parts and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX))


@pytest.fixture(autouse=True, scope="session")
def _no_stray_settings() -> None:
    for name in [n for n in os.environ if n.startswith("PERAK_") and n not in KEPT]:
        del os.environ[name]
