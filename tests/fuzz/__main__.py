"""Run every target under atheris (libFuzzer), each in a process of its own, for a bounded time."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORY_MIB = 2_048
INPUT_BYTES_MAX = 16_384
SLOW_SECONDS = 10
"""One input that takes longer is a finding too."""


def main() -> int:
    options = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--inside", help=argparse.SUPPRESS)
    options.add_argument("only", nargs="*")
    asked, rest = options.parse_known_args()
    if asked.inside:
        _fuzz(asked.inside, rest)
        return 0
    from tests.fuzz.targets import TARGETS

    found = [name for name in asked.only or TARGETS if not _run(name, asked.seconds)]
    print("findings in: " + ", ".join(found) if found else "no findings")
    return 1 if found else 0


def _run(name: str, seconds: int) -> bool:
    from tests.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory(prefix="perak-fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds):
            (corpus / str(number)).write_bytes(seed)
        command = [
            sys.executable, "-m", "tests.fuzz", "--inside", name, str(corpus), f"-max_total_time={seconds}",
            f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={SLOW_SECONDS}",
            f"-artifact_prefix={folder}/", "-print_final_stats=1",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        executions = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        print(
            f"{name}: {executions[1] if executions else '?'} executions, exit {done.returncode}", flush=True
        )
        if done.returncode:
            print(done.stdout[-3_000:], done.stderr[-3_000:])
            for artifact in Path(folder).glob("*-*"):
                print(f"add this to the target's seeds: {artifact.read_bytes()!r}")
        return done.returncode == 0


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["perak"]):
        from tests.fuzz.targets import TARGETS

    def once(data: bytes) -> None:
        TARGETS[name](data)

    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
