"""What a start of the exchange imports: its clients wait for it after every crash."""

from __future__ import annotations

import subprocess
import sys

LATER = ("httpx", "rich", "numpy", "numba", "scipy", "matplotlib", "highspy", "pyarrow", "grpc", "entsoe")
"""Each takes from 30 ms to seconds, and none is needed before the first request."""


def test_a_start_waits_for_no_library_that_it_does_not_need() -> None:
    start = "from perak.server.imports import lighten; lighten(); import perak.server.serving, sys"
    ask = f"print(*[each for each in {LATER!r} if sys.modules.get(each)])"
    done = subprocess.run(
        [sys.executable, "-c", f"{start}; {ask}"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
