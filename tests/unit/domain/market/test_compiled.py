"""What compiled loops may do: those that count no references would never free an array that they made."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import benchmarks
import pytest
from scripts.setup import forget_old_loops

from perak.domain.market import kernels

MAKES = {
    "arange", "argsort", "array", "concatenate", "copy", "empty", "empty_like", "flatnonzero", "full", "ones",
    "repeat", "sort", "where", "zeros", "zeros_like",
}  # fmt: skip
FILES = [
    path for package in (kernels, benchmarks) for path in Path(str(package.__file__)).parent.glob("*.py")
]


def made_uncounted(source: str) -> list[str]:
    """The functions under `inner` that make an array, and the line."""
    return [
        f"{function.name}:{call.lineno}"
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        and any(ast.unparse(each).startswith("inner(") for each in function.decorator_list)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in MAKES
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_counts_no_references_makes_no_arrays(path: Path) -> None:
    assert made_uncounted(path.read_text()) == []


def test_one_that_does_is_found() -> None:
    assert made_uncounted("@inner()\ndef f(n):\n    return np.zeros(n)\n") == ["f:3"]


def test_what_was_compiled_before_a_source_changed_is_compiled_anew(tmp_path: Path) -> None:
    """Loops hold constants of other files, and numba looks at their own alone."""
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    times = {"one.py": 100, "__pycache__/old.nbi": 150, "other.py": 200, "__pycache__/new.nbi": 250}
    for name, at in times.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    forget_old_loops(tmp_path, tmp_path)
    assert [each.name for each in cache.iterdir()] == ["new.nbi"]
