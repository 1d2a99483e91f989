"""Which Pythons count: those that a uid which owns nothing may run."""

from pathlib import Path

import pytest

from perak.agent.environments import pythons as module
from perak.agent.environments.pythons import anyone_may_execute, interpreters, probe


def test_a_private_folder_anywhere_above_hides_a_program(tmp_path: Path) -> None:
    program = tmp_path / "home" / "bin" / "python3.11"
    program.parent.mkdir(parents=True)
    program.write_text("")
    program.chmod(0o755)
    for folder in (program.parent, program.parent.parent):
        folder.chmod(0o755)
    reachable = anyone_may_execute(tmp_path)
    assert anyone_may_execute(program) == reachable
    (tmp_path / "home").chmod(0o700)
    assert not anyone_may_execute(program)
    assert not anyone_may_execute(tmp_path / "absent")


def test_only_system_folders_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = interpreters()
    assert all(any(prefix in each.path.parents for prefix in module.SYSTEM_PREFIXES) for each in found)
    assert len({each.version for each in found}) == len(found)
    for each in found:
        assert each.full.startswith(f"{each.version}.")
        assert "linux" in each.platform
        monkeypatch.setattr(module, "SYSTEM_PREFIXES", (tmp_path,))
        assert probe(each.path) is None
        monkeypatch.undo()
