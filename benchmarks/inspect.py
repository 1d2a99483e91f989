"""Inspections: how near the memory tests come to the device's own copy, and what a quick one takes."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator

from perak.agent.inspect import talk
from perak.agent.inspect.runner import CannotInspect, Runner
from perak.domain.hardware import inspection as i

ROUNDS = 3


def measure() -> Iterator[tuple[str, float, str]]:
    """Of every device here: through the very process that `perak node inspect --quick` starts.

    The first round finds no kernels that pocl has translated, the others do.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield from _measure(Runner(env={"POCL_CACHE_DIR": folder}))


def _measure(runner: Runner) -> Iterator[tuple[str, float, str]]:
    cpu_seconds = 0.0
    for number in range(ROUNDS):
        began = time.perf_counter()
        try:
            found = runner.inspect(talk.Inspect(kind="quick"))
        except CannotInspect as error:
            raise SystemExit(f"nothing to measure: {error.detail}") from None
        yield f"inspect.quick.{number}", time.perf_counter() - began, "s"
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        yield f"inspect.quick_cpu.{number}", used.ru_utime + used.ru_stime - cpu_seconds, "s"
        cpu_seconds = used.ru_utime + used.ru_stime
        for each in found:
            name = f"{each.identity.kind}{each.identity.index}"
            for check, metric in (
                (i.MEMORY_SPEED, "memory_kernels_of_copy"),
                (i.COPY, "copy"),
                (i.FP32, "fp32"),
                (i.PROOF_RATE, "proof"),
            ):
                value = each.value(check)
                if value is not None:
                    yield f"inspect.{name}.{metric}.{number}", value, i.BY_NAME[check].unit
            yield f"inspect.{name}.coverage.{number}", each.coverage, "share"
