"""A real sandbox in a folder that the runs' users can reach, and runs that never outlive their test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_runs import Runs
from weaknesses import Node

from perak.agent.sandbox import Sandbox, TierReport
from perak.agent.sandbox.scratch import mounted_under


@pytest.fixture(scope="session")
def probed() -> Iterator[tuple[Sandbox, TierReport]]:
    """The sandbox as root, checked; the folder is not pytest's, whose parents are closed to other users."""
    if os.geteuid() != 0:
        pytest.skip("needs root: runs get users of their own")
    state_dir = Path(tempfile.mkdtemp(prefix="perak-sandbox-"))
    state_dir.chmod(0o711)
    sandbox, report = Sandbox.probe(state_dir)
    if sandbox is None:
        shutil.rmtree(state_dir)
        pytest.skip(f"no sandbox on this machine: {report.reason}")
    yield sandbox, report
    for status in sandbox.find():
        sandbox.clear(status.run_id)
    sandbox.close()
    assert mounted_under(state_dir) == []
    shutil.rmtree(state_dir)


@pytest.fixture
def runs(probed: tuple[Sandbox, TierReport]) -> Iterator[Runs]:
    runs = Runs(probed[0])
    yield runs
    runs.poke.close()
    for status in runs.sandbox.find():
        runs.sandbox.clear(status.run_id)


@pytest.fixture(scope="module")
def node(probed: tuple[Sandbox, TierReport]) -> Iterator[Node]:
    """Where sandboxes are weakened; what that leaves in the agent's folder is taken away."""
    state = probed[0].state_dir
    known = set((state / "bin").iterdir())
    folder = Path(tempfile.mkdtemp(prefix="perak-open-", dir="/var/tmp"))
    (folder / "file").touch()
    for path in (folder, folder / "file"):
        path.chmod(0o777)
    yield Node(state=state, open=folder)
    shutil.rmtree(folder)
    for path in set((state / "bin").iterdir()) - known:
        if path.is_file():
            path.unlink()
