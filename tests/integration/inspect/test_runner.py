"""The inspecting process from its parent's side: what it says, and what is told when it dies or hangs."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from perak.agent.inspect import talk
from perak.agent.inspect.runner import Cancelled, CannotInspect, Runner
from perak.cli.main import cli
from perak.domain.hardware import inspection as i
from perak.domain.hardware.challenge import Challenge
from perak.domain.hardware.inspection import Check, DeviceIdentity
from stand_ins import nvml_states

SMALL = talk.Inspect(kind="quick", cpu_memory_bytes=2**20, run_seconds=0.001, product_size=16)
IDENTITY = DeviceIdentity(uuid="GPU-7", model="NVIDIA A100", kind="nvidia", index=0)
BEGAN = talk.Began(place="0000:f0:00.0", identity=IDENTITY, number=0, count=1)


def pretending(folder: Path, *lines: talk.Said, then: str = "exit 0", first_only: bool = True) -> Runner:
    """A process that says these lines to whoever starts it; the second time, nothing."""
    text = "".join(talk.encode(line).decode() for line in lines)
    (folder / "lines").write_text(text)
    once = f"[ -e {folder}/done ] && exit 0\n: > {folder}/done\n" if first_only else ""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nread request\n{once}cat {folder}/lines\n{then}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Runner(python=str(program), silent_seconds_max=30.0)


def test_a_real_process_inspects_the_processor_and_a_card_that_opencl_does_not_show(tmp_path: Path) -> None:
    root = nvml_states.make_library(tmp_path / "root")
    said: list[talk.Said] = []
    runner = Runner(env=nvml_states.env(root, nvml_states.state("0 remapped 0 1 1 0")))
    found = runner.inspect(SMALL, say=said.append)
    gpu = next(each for each in found if each.identity.kind == "nvidia")
    assert gpu.identity.serial == "13200"
    assert gpu.check(i.REMAP_PENDING).status == "failed"
    assert gpu.check(i.ECC_AGGREGATE_UNCORRECTED).status == "passed"
    for name in (i.MEMORY_RANDOM, i.COMPUTE_FP32, i.COPY):
        assert gpu.check(name).status == "not_run"
        assert "OpenCL" in gpu.check(name).reason
    assert any(isinstance(each, talk.Checking) for each in said), "progress is told while it runs"
    cpus = [each for each in found if each.identity.kind == "cpu"]
    if not cpus:
        pytest.skip("no OpenCL platform shows the processor: pocl is not installed")
    assert cpus[0].check(i.MEMORY_RANDOM).status == "passed"


def test_a_card_lost_on_the_way_fails_and_passes_nothing_after(tmp_path: Path) -> None:
    root = nvml_states.make_library(tmp_path / "root")
    runner = Runner(env=nvml_states.env(root, nvml_states.state("0 lost_after 45")))
    found = runner.inspect(talk.Inspect(kind="quick", cpu=False))
    (gpu,) = found
    assert any("lost" in check.reason for check in gpu.failed), gpu.failed
    assert gpu.check(i.NVLINK_ERRORS).status == "not_run"


def test_a_process_that_dies_on_a_device_leaves_a_report_of_it(tmp_path: Path) -> None:
    passed = Check(name=i.COPY, status="passed", value=1.0, unit="GB/s")
    lines = (BEGAN, talk.Checking(names=(i.COPY, i.FP32, i.FP64)), talk.Checked(check=passed))
    (found,) = pretending(tmp_path, *lines, then="kill -SEGV $$").inspect(SMALL)
    assert found.identity == IDENTITY
    assert found.check(i.COPY).status == "passed"
    assert found.check(i.FP32).status == "failed"
    assert "SIGSEGV" in found.check(i.FP32).reason
    assert found.check(i.FP64).status == "not_run"
    assert [check.name for check in found.checks] == [kind.name for kind in i.CHECKS]


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    runner = pretending(tmp_path, BEGAN, talk.Checking(names=(i.COPY,)), then="sleep 60")
    runner.silent_seconds_max = 0.5
    (found,) = runner.inspect(SMALL)
    assert "said nothing" in found.check(i.COPY).reason


def test_it_can_be_cancelled_at_once_for_a_lease(tmp_path: Path) -> None:
    runner = pretending(tmp_path, BEGAN, then="sleep 60")
    heard = threading.Event()
    ended: list[type[BaseException]] = []

    def inspect() -> None:
        try:
            runner.inspect(SMALL, say=lambda _: heard.set())
        except Cancelled as error:
            ended.append(type(error))

    thread = threading.Thread(target=inspect)
    thread.start()
    assert heard.wait(30)
    runner.cancel()
    thread.join(30)
    assert ended == [Cancelled]


def test_without_a_device_it_says_what_to_install(tmp_path: Path) -> None:
    runner = pretending(
        tmp_path, talk.Trouble(why="neither OpenCL nor a driver shows a device"), then="exit 1"
    )
    with pytest.raises(CannotInspect, match="shows a device"):
        runner.inspect(SMALL)


def test_wipes_and_challenges_are_answered_whatever_happens(tmp_path: Path) -> None:
    runner = pretending(tmp_path, then="echo no driver >&2; exit 3", first_only=False)
    (record,) = runner.wipe(("GPU-7",), lease="lease_1")
    assert (record.status, record.memory_bytes) == ("failed", None)
    assert "no driver" in record.reason
    asked = Challenge(id="x", nonce="0" * 32, devices=("GPU-7",), leaves=64)
    assert "no driver" in runner.prove(asked).problem


def test_the_command_prints_what_the_issue_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = i.complete(
        [Check(name=i.MEMORY_RANDOM, status="failed", value=1, unit="mismatches", threshold=0)]
    )
    now = time.time_ns() // 1_000_000
    found = i.DeviceInspection(
        identity=IDENTITY, kind="quick", trigger="hand", started_at=now, ended_at=now, checks=checks,
        mismatches=(i.Mismatch(check=i.MEMORY_RANDOM, buffer=0, address=64, expected=1, read=3, mask=2),),
    )  # fmt: skip
    pretended = pretending(tmp_path, BEGAN, talk.Inspected(place="x", inspection=found), first_only=False)
    monkeypatch.setattr("perak.agent.inspect.runner.Runner", lambda: pretended)
    done = CliRunner().invoke(cli, ["node", "inspect", "--quick", "--json"])
    assert done.exit_code == 1, done.output
    (device,) = json.loads(done.stdout)
    assert {"identity", "checks", "coverage", "score", "grade", "reasons"} <= set(device)
    assert {"name", "status", "reason", "value", "unit", "threshold", "source"} <= set(device["checks"][0])
    readable = CliRunner().invoke(cli, ["node", "inspect", "--quick"])
    assert "memory.random" in readable.stdout
    assert "0x0000000040" in readable.stdout
    assert "NOT RUN" in readable.stdout


def test_the_agent_does_not_load_opencl() -> None:
    code = "import sys, perak.agent.loop; print('pyopencl' in sys.modules, 'numpy' in sys.modules)"
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split() == ["False", "False"]
