"""What the README tells people to type works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from acceptance.conftest import ROOT, Shell
from perak.wire.jobfile import parse_job


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(text)


def test_the_python_example_runs(perak: Shell, tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(block("python"))
    assert len(block("python").splitlines()) <= 10
    reply = subprocess.run(
        [sys.executable, str(example)],
        env=perak.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.startswith("succeeded 0.0")
    assert "g CO2e" in reply.stdout


def test_the_job_file_is_valid() -> None:
    import yaml

    spec = parse_job(yaml.safe_load(block("yaml")), workdir_digest=None)
    assert spec.limits.max_cost == 1_000_000


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
