"""How long each fault took to heal, shown at the end of the tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TEST_SECONDS_MAX = 2400 if os.environ.get("FAULTS_LENGTH") == "full" else 300


@pytest.fixture
def healed(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Note what was broken, and after how many seconds it was well again."""
    noted: list[tuple[str, object]] = request.node.user_properties  # they travel from pytest's workers
    return lambda what, seconds: noted.append((f"healed: {what}", seconds))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="perak-faults-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        Path(name).chmod(0o711)  # as root, database and runs have users of their own, who must pass
        yield Path(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of these waits for several things, one after the other, and a busy machine takes long for each."""
    for item in items:
        if "faults" in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    found = [
        (name.removeprefix("healed: "), seconds)
        for report in reports
        if report.when == "call"
        for name, seconds in report.user_properties
        if name.startswith("healed: ")
    ]
    if found:
        terminalreporter.section("faults: healed after")
        for what, seconds in found:
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
