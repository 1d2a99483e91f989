"""`perak --help`, the whole process, warm."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TIMES = 15


def measure() -> Iterator[tuple[str, float, str]]:
    command = [str(Path(sys.executable).with_name("perak")), "--help"]
    timings = []
    for _ in range(TIMES + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        timings.append(time.perf_counter() - begin)
    yield "help_p50_ms", round(1000 * statistics.median(timings[1:]), 1), "ms"
