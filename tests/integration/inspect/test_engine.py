"""Whole inspections on a real OpenCL device: a wrong product, a device that goes, what did not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyopencl as cl
import pytest

from perak.agent.inspect import talk
from perak.agent.inspect.compute import products
from perak.agent.inspect.engine import Hooks, Inspection
from perak.agent.inspect.memory import Buffer
from perak.agent.inspect.opencl import Session, answering
from perak.agent.inspect.prove import prove
from perak.agent.inspect.targets import Target
from perak.agent.inspect.wiping import wipe
from perak.domain.hardware import challenge as c
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.plausible import check_report
from perak.domain.report import Inspected, Report
from perak.wire.session import decode_report, encode_report

SMALL = talk.Inspect(kind="quick", cpu_memory_bytes=4 * 2**20, run_seconds=0.002, product_size=64)


def inspected(target: Target, hooks: Hooks | None = None, request: talk.Inspect = SMALL) -> DeviceInspection:
    return Inspection(
        target=target, request=request, say=lambda _: None, hooks=hooks or Hooks(), version="test"
    ).run()


@pytest.fixture(scope="module")
def healthy(target: Target) -> DeviceInspection:
    return inspected(target)


def test_every_check_there_is_has_one_result_and_none_passes_without_a_value(
    healthy: DeviceInspection,
) -> None:
    assert [check.name for check in healthy.checks] == [kind.name for kind in i.CHECKS]
    assert all(check.value is not None for check in healthy.checks if check.status == "passed")
    assert all(check.reason for check in healthy.checks if check.status == "not_run")
    assert 0.2 < healthy.coverage < 0.6, "a processor has no driver that counts, and no data sheet"


def test_quick_says_what_it_left_out(healthy: DeviceInspection) -> None:
    left = [check.name for check in healthy.checks if check.reason == "left out of --quick"]
    assert i.MEMORY_BIT_FADE in left
    assert i.SOAK_TEMPERATURE in left


def test_an_inspection_comes_over_the_wire_as_it_was(healthy: DeviceInspection) -> None:
    payload = encode_report(seq=1, node="node_1", at=healthy.ended_at, body=Inspected(inspection=healthy))
    report = decode_report(payload, jws="x")
    assert isinstance(report.body, Inspected)
    assert i.digest(report.body.inspection) == i.digest(healthy)
    check_report(
        Report(seq=1, node="node_1", at=healthy.ended_at, body=report.body, jws="x"), now_ms=healthy.ended_at
    )


def test_a_soak_is_sampled_and_its_drift_fitted(target: Target) -> None:
    found = inspected(
        target,
        request=talk.Inspect(
            kind="soak",
            soak_seconds=0.5,
            fade_seconds=0.0,
            cpu_memory_bytes=2**20,
            run_seconds=0.002,
            product_size=16,
        ),
    )
    assert found.samples
    assert all(sample.tflops for sample in found.samples)
    assert found.check(i.SOAK_SECONDS).status == "passed"
    assert found.check(i.MEMORY_BIT_FADE).status == "passed"
    assert found.check(i.SOAK_TEMPERATURE).status == "not_run", "no sensor tells it: missing, never zero"


@pytest.mark.parametrize(("spoiled", "failed"), [(0, i.COMPUTE_FP32), (2, i.COMPUTE_STABLE)])
def test_a_wrong_product_is_found(session: Session, spoiled: int, failed: str) -> None:
    def spoil(session: Session, product: Any, number: int) -> None:
        if number == spoiled:
            words = session.read(product, 1)
            words ^= np.uint32(1 << 28)
            session.copy(product, words)

    checks = {check.name: check for check in products(session, n=32, repeats=3, hook=spoil)}
    assert checks[failed].status == "failed"


def test_products_are_right_and_the_same_each_time(session: Session) -> None:
    checks = {check.name: check for check in products(session, n=32, repeats=3)}
    assert checks[i.COMPUTE_FP32].status == "passed"
    assert checks[i.COMPUTE_STABLE].status == "passed"
    value, bound = checks[i.COMPUTE_FP32].value, checks[i.COMPUTE_FP32].threshold
    assert value is not None
    assert bound is not None
    assert 0 < value <= bound


def vanish() -> Callable[[Session, list[Buffer]], None]:
    calls = 0

    def hook(session: Session, under_test: list[Buffer]) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            with answering():
                raise cl.LogicError("clFinish failed: DEVICE_NOT_AVAILABLE")

    return hook


def test_a_device_that_vanishes_half_way_fails_what_was_tried_and_passes_nothing_after(
    target: Target, healthy: DeviceInspection
) -> None:
    found = inspected(target, Hooks(memory=vanish()))
    failed = [check.name for check in found.checks if check.status == "failed"]
    assert len(failed) == 1
    assert failed[0].startswith("memory.")
    assert "gone" in found.check(failed[0]).reason
    assert found.check(i.COMPUTE_FP32).status == "not_run"
    assert "gone" in found.check(i.COMPUTE_FP32).reason
    assert found.coverage < healthy.coverage


def test_a_device_proves_its_work_and_the_exchange_makes_some_of_it_anew(session: Session) -> None:
    asked = c.Challenge(id="x", nonce="ab" * 16, devices=("GPU-1",), leaves=128, steps=32)
    answer = c.Answer(challenge="x", proofs=(prove(session, asked, "GPU-1"),))
    assert c.check(asked, answer, elapsed_seconds=1.0, allowed_seconds=2.0) == ()


def test_a_wipe_overwrites_and_reads_back_from_a_fresh_context(target: Target) -> None:
    record = wipe(target, device="GPU-1", lease="lease_1", cpu_bytes_max=2**20)
    assert record.status in ("passed", "failed"), record.reason
    assert record.method == "Clear"
    assert record.memory_bytes == 2**20
    assert record.local_bytes


def test_a_device_that_is_not_there_is_not_wiped() -> None:
    record = wipe(None, device="GPU-1", lease="lease_1")
    assert (record.status, record.memory_bytes) == ("not_run", None)
