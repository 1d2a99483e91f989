"""An agent that ends while it still tries its sandbox leaves no mount, no process and no bait behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_exchange import fake_exchange

from perak.agent.sandbox import probe as default_probe
from perak.agent.sandbox import process
from perak.agent.sandbox.sandbox import BAIT_PREFIX, PROBE_PREFIX
from perak.agent.sandbox.scratch import mount_image, mounted_under
from perak.agent.sandbox.tier import TierReport
from perak.agent.sandbox.tiers import RUNTIMES

# What this machine's other agents have found out is of no use here.
AGENT = """
import pathlib, sys
from perak.agent.sandbox import probe
probe.CACHE_FOLDER = pathlib.Path(sys.argv.pop(1))
from perak.agent.main import command
command()
"""
BEGUN_SECONDS = 20.0
END_SECONDS = 20.0
"""For a machine that is busy; it takes half a second."""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: only then have runs mounts on the node")
    folder = Path(tempfile.mkdtemp(prefix="perak-early-"))
    folder.chmod(0o711)  # Each run has a user of its own, who must get through.
    yield folder
    if mounted_under(folder):  # A test failed: the next agent's first step takes them away.
        sandbox, _ = default_probe.probe(folder)
        if sandbox is not None:
            sandbox.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def checked(state_dir: Path) -> Path:
    """Where an agent of this test looks for what was found out."""
    return state_dir / "checked"


@asynccontextmanager
async def agent(state_dir: Path, checked: Path, tiers: str) -> AsyncIterator[asyncio.subprocess.Process]:
    async with fake_exchange() as exchange:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, str(checked), "--state-dir", str(state_dir), "--tiers", tiers),
            *("--invite", exchange.invite, "--price-cpu", "0.02"),
        )
        try:
            yield started
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


async def tried(state_dir: Path, started: asyncio.subprocess.Process) -> set[process.ProcessId]:
    """Wait until a run of the checklist lives; every process below the agent then."""
    async with asyncio.timeout(BEGUN_SECONDS):
        while True:
            below = process.descendants(started.pid)
            # The agent's one child forks the shims, and each of these has a bubblewrap.
            if mounts(state_dir) and len(below) >= 4:
                return {each for pid in below if (each := process.identify(pid)) is not None}
            assert started.returncode is None, "the agent ended before anything was tried"
            await asyncio.sleep(0.005)


def remember_default(checked: Path, report: TierReport) -> set[str]:
    """Let agents know of the default tier, and of no other, what is known on this machine."""
    checked.mkdir()
    for each in default_probe.CACHE_FOLDER.iterdir():
        if json.loads(each.read_text())["tier"] == report.tier:
            shutil.copy(each, checked)
    return {each.name for each in checked.iterdir()}


def mounts(state_dir: Path) -> list[Path]:
    return [each for each in mounted_under(state_dir / "runs") if each.parent.name.startswith(PROBE_PREFIX)]


def left_of(state_dir: Path, seen: set[process.ProcessId]) -> list[str]:
    """Everything that outlived the agent."""
    runs = [f"{each.name} is there" for each in (state_dir / "runs").iterdir()]
    bait = [f"{each.name} is there" for each in state_dir.glob(f"{BAIT_PREFIX}*")]
    lives = [f"{each.pid} lives" for each in seen if process.is_alive(each)]
    ours = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(state_dir) in (entry / "cmdline").read_bytes():
                ours.append(f"{entry.name} is of {state_dir}")
        except OSError:
            continue
    return [*map(str, mounted_under(state_dir)), *runs, *bait, *lives, *ours]


async def nothing_is_left(state_dir: Path, seen: set[process.ProcessId]) -> None:
    """What forks the shims sees a moment after the agent's end that it has nobody to work for."""
    async with asyncio.timeout(END_SECONDS):
        while left := left_of(state_dir, seen):
            print(left)
            await asyncio.sleep(0.05)


async def test_an_agent_ended_while_it_tries_its_sandbox_leaves_nothing(
    state_dir: Path, checked: Path
) -> None:
    async with agent(state_dir, checked, "bubblewrap") as started:
        seen = await tried(state_dir, started)
        started.terminate()
        assert await asyncio.wait_for(started.wait(), END_SECONDS) == 0
        assert mounted_under(state_dir) == []
        await nothing_is_left(state_dir, seen)
    assert not checked.exists(), "what was broken off is not remembered"


async def test_an_agent_ended_while_it_tries_its_other_tiers_leaves_nothing_even_when_killed(
    state_dir: Path, checked: Path
) -> None:
    if not any(RUNTIMES["crun"].candidates(state_dir / "bin")):
        pytest.skip("there is no crun to try beside bubblewrap")
    sandbox, report = default_probe.probe(state_dir)
    if sandbox is None:
        pytest.skip(report.reason or "no sandbox")
    sandbox.close()
    known = remember_default(checked, report)
    async with agent(state_dir, checked, "bubblewrap,crun") as started:
        seen = await tried(state_dir, started)
        started.send_signal(signal.SIGHUP)
        assert await asyncio.wait_for(started.wait(), END_SECONDS) == 0
        assert mounted_under(state_dir) == []
        await nothing_is_left(state_dir, seen)
    async with agent(state_dir, checked, "bubblewrap,crun") as started:
        seen = await tried(state_dir, started)
        started.kill()
        await started.wait()
        assert mounts(state_dir), "nobody was left to take them away"
    sandbox, report = default_probe.probe(state_dir)  # The next agent's first step.
    assert sandbox is not None, report.reason
    sandbox.close()
    await nothing_is_left(state_dir, seen)
    assert {each.name for each in checked.iterdir()} == known, "what was broken off is not remembered"


def test_a_scratch_that_a_killed_agent_left_mounted_costs_the_next_one_no_limit(state_dir: Path) -> None:
    sandbox, report = default_probe.probe(state_dir)
    if sandbox is None or not sandbox.host.disk_is_capped:
        pytest.skip(f"no capped scratch on this machine: {report.reason}")
    sandbox.close()
    folder = state_dir / "runs" / default_probe.SCRATCH_CHECK_NAME
    folder.mkdir()
    mount_image(folder, default_probe.SCRATCH_CHECK_BYTES, templates=state_dir / "templates")
    again, after = default_probe.probe(state_dir)
    assert again is not None
    again.close()
    assert after.unenforced == report.unenforced
    assert mounted_under(state_dir) == []
