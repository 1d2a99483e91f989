"""Run the benchmarks: ``python -m benchmarks [GROUP ...]``; stdout has one JSON line a figure."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator

GROUPS = (
    "latency",
    "burst",
    "api",
    "memory",
    "cli",
    "crash",
    "ledger",
    "market",
    "mip",
    "openb",
    "replay",
    "fleet",
    "sandbox",
    "meter",
    "gaia",
    "eurosys24",
    "inspect",
)
"""Each is a module here with a function `measure() -> Iterator[(metric, value, unit)]`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"one of {', '.join(GROUPS)}; default all")
    groups = parser.parse_args().groups or list(GROUPS)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        parser.error(f"there is no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    for group in groups:
        print(f"measuring {group} …", file=sys.stderr)
        measure: Callable[[], Iterator[tuple[str, float, str]]]
        measure = importlib.import_module(f"benchmarks.{group}").measure
        for metric, value, unit in measure():
            print(json.dumps({"metric": metric, "value": value, "unit": unit}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
