"""Matrix products on tensor cores, which OpenCL does not reach: by torch or CuPy, where one is installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from perak.agent.inspect.throughput import measured
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check

if TYPE_CHECKING:
    from perak.agent.inspect.targets import Target

SIZE = 4096
"""137 GFLOP a product: 1 ms on the fastest card, and cuBLAS is at its peak there."""
RUNS, REPEATS = 5, 20


def rates(target: Target) -> Iterator[Check]:
    """BF16 and FP16, accumulated in FP32."""
    if target.identity.kind not in ("nvidia", "amd"):
        yield from _absent("this device has no tensor cores that torch or CuPy reach")
        return
    try:
        if find_spec("torch") is not None:
            yield from _by_torch(target)
        elif find_spec("cupy") is not None:
            yield from _by_cupy(target)
        else:
            yield from _absent("neither torch nor CuPy is installed")
    except Exception as error:  # CUDA libraries of the wrong version raise anything; the card is not to blame
        yield from _absent(f"torch or CuPy could not use the device: {error}"[:300])


def _by_torch(target: Target) -> Iterator[Check]:
    import torch

    number = _number(
        target,
        [torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count())],
    )
    if number is None:
        yield from _absent("torch does not see this device")
        return
    device = f"cuda:{number}"
    for name, dtype, least in (
        (i.TENSOR_BF16, torch.bfloat16, (8, 0)),
        (i.TENSOR_FP16, torch.float16, (7, 0)),
    ):
        if target.identity.kind == "nvidia" and torch.cuda.get_device_capability(number) < least:
            yield _not_run(
                name, f"tensor cores of this kind began with compute capability {least[0]}.{least[1]}"
            )
            continue
        a = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
        b = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
        found = _timed(lambda a=a, b=b: torch.matmul(a, b), lambda: torch.cuda.synchronize(number))  # type: ignore[misc]
        yield measured(name, found, source=f"torch {torch.__version__}")


def _by_cupy(target: Target) -> Iterator[Check]:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    buses = [cupy.cuda.Device(number).pci_bus_id.lower() for number in range(count)]
    if target.identity.pci_bus not in buses:
        yield from _absent("CuPy does not see this device")
        return
    yield _not_run(i.TENSOR_BF16, "CuPy has no BF16")
    with cupy.cuda.Device(buses.index(target.identity.pci_bus)):
        a = cupy.random.rand(SIZE, SIZE).astype(cupy.float16)
        found = _timed(lambda: cupy.matmul(a, a), cupy.cuda.get_current_stream().synchronize)
    yield measured(i.TENSOR_FP16, found, source=f"CuPy {cupy.__version__}")


def _number(target: Target, properties: list[Any]) -> int | None:
    """Which of torch's devices it is: by its UUID or bus where torch tells, else the only one."""
    for number, each in enumerate(properties):
        uuid = str(getattr(each, "uuid", ""))
        if uuid and uuid in target.identity.uuid:
            return number
        bus = getattr(each, "pci_bus_id", None)
        if bus is not None and target.identity.pci_bus and f":{bus:02x}:" in target.identity.pci_bus:
            return number
    return 0 if len(properties) == 1 else None


def _timed(work: Callable[[], object], wait: Callable[[], object]) -> list[float]:
    """TFLOP/s of each of several timed runs, after one to warm up."""
    found = []
    for number in range(RUNS + 1):
        wait()
        began = time.perf_counter()
        for _ in range(REPEATS):
            work()
        wait()
        if number:
            found.append(2 * SIZE**3 * REPEATS / (time.perf_counter() - began) / 1e12)
    return found


def _absent(why: str) -> Iterator[Check]:
    yield _not_run(i.TENSOR_BF16, why)
    yield _not_run(i.TENSOR_FP16, why)


def _not_run(name: str, why: str) -> Check:
    return Check(name=name, status="not_run", reason=why, unit="TFLOP/s")
