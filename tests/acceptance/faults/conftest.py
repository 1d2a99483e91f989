"""How long each fault took to heal, shown at the end of the tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_healed: list[tuple[str, float]] = []


@pytest.fixture
def healed() -> Callable[[str, float], None]:
    """Note what was broken, and after how many seconds it was well again."""
    return lambda what, seconds: _healed.append((what, seconds))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="perak-faults-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as name:
        Path(name).chmod(0o711)  # as root, database and runs have users of their own, who must pass
        yield Path(name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _healed:
        terminalreporter.section("faults: healed after")
        for what, seconds in _healed:
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
