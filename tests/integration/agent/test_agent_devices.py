"""A real agent inspects its device by itself, reports it, and answers a challenge; on pocl's processor."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fake_exchange import FakeExchange, fake_exchange

from perak.domain.hardware import challenge as c
from perak.domain.hardware import inspection as i
from perak.domain.hardware.challenge import Challenge
from perak.domain.report import Inspected, Proved

pytest.importorskip("pyopencl", reason="PyOpenCL is not installed: pip install perak[inspect]")

START = """
import functools
import perak.agent.settings as settings
from perak.agent.inspect import talk
talk.Inspect = functools.partial(talk.Inspect, cpu_memory_bytes=2**20, run_seconds=0.001, product_size=16)
settings.Limits = functools.partial(settings.Limits, device_check_seconds=0.2)
from perak.agent.main import command
command()
"""
PATIENCE_SECONDS = 90.0
"""Translating the kernels takes some seconds, and ten times that on a machine that is busy with others."""


@pytest.fixture
async def exchange() -> AsyncIterator[FakeExchange]:
    async with fake_exchange() as made:
        yield made


@pytest.fixture
def state_dir() -> Iterator[Path]:
    from perak.agent.sandbox.probe import probe

    folder = Path(tempfile.mkdtemp(prefix="perak-test-"))
    folder.chmod(0o711)  # Each run has a user of its own, who must get through.
    try:
        sandbox, tier = probe(folder)
        if sandbox is None:
            pytest.skip(tier.reason or "no sandbox")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300)
async def test_an_agent_inspects_at_enrolment_and_answers_a_challenge(
    exchange: FakeExchange, state_dir: Path
) -> None:
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", START, "--state-dir", str(state_dir)),
        *("--invite", exchange.invite, "--price-cpu", "0.02", "--inspect-cpu"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        found: list[Inspected] = await exchange.until(
            lambda: exchange.bodies(Inspected), seconds=PATIENCE_SECONDS
        )
        inspection = found[0].inspection
        if inspection.identity.kind != "cpu":
            pytest.skip("no OpenCL platform shows the processor: pocl is not installed")
        assert (inspection.kind, inspection.trigger) == ("quick", "enrolment")
        assert inspection.check(i.MEMORY_RANDOM).status == "passed"
        assert inspection.value(i.PROOF_RATE)
        asked = Challenge(id="x", nonce="c0" * 16, devices=(inspection.identity.uuid,), leaves=64, steps=64)
        await exchange.prove(asked)
        (proved,) = await exchange.until(lambda: exchange.bodies(Proved), seconds=PATIENCE_SECONDS)
        assert c.check(asked, proved.answer, elapsed_seconds=1.0, allowed_seconds=2.0) == ()
    finally:
        agent.terminate()
        await agent.wait()
