"""A whole Perak on this machine, started by its own command, for the tests of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.local import Local, perak_up, quiet_environment

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 90
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


@pytest.fixture(scope="session")
def local() -> Iterator[Local]:
    with perak_up("--fund", "100") as running:
        yield running


@pytest.fixture(scope="session")
def perak(local: Local) -> Shell:
    return Shell(local)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "acceptance" in Path(item.path).parts:
            item.add_marker("acceptance")


@pytest.fixture(autouse=True, scope="session")
def _no_stray_settings() -> None:
    for name in [n for n in os.environ if n.startswith("PERAK_") and n not in KEPT]:
        del os.environ[name]
