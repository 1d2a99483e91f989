"""The environment that `make setup` leaves, and the pins that it is made from."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
PINNED = ROOT / "requirements" / "dev.txt"
PIN_FILES = (PINNED, ROOT / "requirements" / "pip.txt")


def pins() -> dict[str, set[Version]]:
    """The pinned versions by name; one name may have several, for different Python versions."""
    found: dict[str, set[Version]] = {}
    for line in re.findall(r"^[a-z][^ ]*==[^ ]+", PINNED.read_text(), re.MULTILINE):
        name, _, version = line.partition("==")
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


UNPINNED = {"fuzz"}
"""Extras that `make setup` does not install; see the Makefile."""


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in UNPINNED}
    groups = [project["dependencies"], *extras.values()]
    everything = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in everything if requirement.name != project["name"]]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_what_the_project_declares_is_pinned(requirement: Requirement) -> None:
    versions = pins().get(canonicalize_name(requirement.name), set())
    assert any(version in requirement.specifier for version in versions), "run `make lock`"


@pytest.mark.parametrize("file", PIN_FILES, ids=lambda file: file.name)
def test_every_pin_has_a_hash_and_no_file_names_an_address(file: Path) -> None:
    text = file.read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert not re.search(r"^--|^\s*--(?!hash)", text, re.MULTILINE)


def test_no_accelerator_framework_comes_in() -> None:
    assert not {"torch", "tensorflow", "jax"} & pins().keys()


def test_setup_again_does_nothing_and_says_nothing() -> None:
    if not (ROOT / ".venv" / ".setup-digest").exists():
        pytest.skip("this environment was not made by `make setup`")
    command = [sys.executable, str(ROOT / "scripts" / "setup.py")]
    digest = ROOT / ".venv" / ".setup-digest"
    written = digest.stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert again.stdout == ""
    assert digest.stat().st_mtime_ns == written, "it installed something"
    assert os.access(ROOT / ".venv" / "bin" / "perak", os.X_OK)


def test_setup_with_an_old_python_says_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "old.py"
    script = ROOT / "scripts" / "setup.py"
    old.write_text(
        "import runpy, sys\n"
        "sys.version_info = (3, 10, 0)\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    refused = subprocess.run([sys.executable, str(old)], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "needs Python 3.11 or later" in refused.stderr
    assert "make setup PYTHON=" in refused.stderr


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec make test" in script.read_text()
