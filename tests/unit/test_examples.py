"""The examples are valid job files, and what runs on a card can at least be compiled here."""

from __future__ import annotations

from pathlib import Path

import pytest

from perak.wire.jobfile import load_job_file

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/job.yaml")), ids=lambda path: path.parent.name)
def test_an_example_is_a_valid_job(path: Path) -> None:
    spec = load_job_file(path).spec
    assert spec.limits.max_cost is not None or spec.name == "hello"
    for program in path.parent.glob("*.py"):
        compile(program.read_text(), str(program), "exec")


def test_the_gpu_example_asks_for_a_card_and_torch() -> None:
    spec = load_job_file(EXAMPLES / "train-gpu" / "job.yaml").spec
    assert spec.resources.gpu_count == 1
    assert spec.python is not None
    assert "torch" in spec.python.packages
