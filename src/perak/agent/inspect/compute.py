"""Is what a device computes right, and the same each time? Matrix products, against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perak.agent.inspect.opencl import WORD_BYTES, Session
from perak.domain.hardware import inspection as i
from perak.domain.hardware.inspection import Check

TILES = {True: 2, False: 16}
"""On a processor and on a GPU: `TILE` of the kernels."""
Hook = Callable[[Session, Any, int], None]
"""Called with each product (its buffer, which one it is) before it is looked at; tests spoil it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A kind of number. `unit_roundoff`: half the distance from 1 to the next (IEEE 754)."""

    check: str
    kernel: str
    dtype: type[Any]
    unit_roundoff: float
    n_max: int
    """Sums of more terms would have a bound that lets through everything."""


PRECISIONS = (
    Precision(check=i.COMPUTE_FP32, kernel="fp32", dtype=np.float32, unit_roundoff=2**-24, n_max=4096),
    Precision(check=i.COMPUTE_FP16, kernel="fp16", dtype=np.float16, unit_roundoff=2**-11, n_max=64),
    Precision(check=i.COMPUTE_FP64, kernel="fp64", dtype=np.float64, unit_roundoff=2**-53, n_max=1024),
)


def products(session: Session, *, n: int, repeats: int, hook: Hook | None = None) -> Iterator[Check]:
    """One check a precision, and whether every repetition gave the very bits of the first."""
    different = repeated = 0
    for precision in PRECISIONS:
        if not _has(session, precision):
            yield Check(
                name=precision.check,
                status="not_run",
                reason=f"the device has no {precision.kernel.upper()} in OpenCL",
                unit="relative error",
            )
            continue
        check, others = _product(session, precision, n=min(n, precision.n_max), repeats=repeats, hook=hook)
        different += others
        repeated += repeats
        yield check
    yield Check(
        name=i.COMPUTE_STABLE,
        status="failed" if different else "passed",
        reason=f"{repeated} repetitions under load",
        value=different,
        unit="results",
        threshold=0,
        source="OpenCL",
    )


def _has(session: Session, precision: Precision) -> bool:
    return {"fp16": session.has_fp16, "fp64": session.has_fp64}.get(precision.kernel, True)


def _product(
    session: Session, precision: Precision, *, n: int, repeats: int, hook: Hook | None
) -> tuple[Check, int]:
    """The check of the first product, and how many of the repetitions differ from it.

    |fl(AB) - AB| <= n u / (1 - n u) |A||B|, for any order of the sums: Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd edition, 3.5. The reference is of FP64, or, for FP64, has the same bound itself.
    """
    random = np.random.default_rng(0x5EED + n)
    a = random.uniform(-1, 1, (n, n)).astype(precision.dtype)
    b = random.uniform(-1, 1, (n, n)).astype(precision.dtype)
    size = a.nbytes
    on_device = [session.buffer(size) for _ in range(4)]
    for buffer, array in zip(on_device, (a, b), strict=False):
        session.copy(buffer, array)
    first, again = on_device[2:]
    tile = TILES[session.shown.is_cpu]
    different = 0
    for number in range(repeats):
        into = again if number else first
        session.run(f"product_{precision.kernel}", (n, n), (tile, tile), *on_device[:2], into, n)
        if hook is not None:
            session.finish()
            hook(session, into, number)
        if number:
            session.clear_found()
            session.run(
                "differ",
                (size // WORD_BYTES,),
                session.group(size // WORD_BYTES),
                first,
                again,
                session.findings[0],
            )
            different += bool(session.found()[0])
    result = np.empty((n, n), precision.dtype)
    session.copy(result, first)
    error = _error(result, a, b)
    steps = n * precision.unit_roundoff * (2 if precision.kernel == "fp64" else 1)
    bound = steps / (1 - steps)
    check = Check(
        name=precision.check,
        status="passed" if error <= bound else "failed",
        reason=f"{n} x {n}, relative to |A||B|" if np.isfinite(error) else "a result is not a number",
        value=error if np.isfinite(error) else None,
        unit="relative error",
        threshold=bound,
        source="OpenCL; Higham 2002, 3.5",
    )
    return check, different


def _error(result: Any, a: Any, b: Any) -> float:
    """The largest error, relative to the sums of the sizes of what was added."""
    wide = np.float64
    reference = a.astype(wide) @ b.astype(wide)
    sizes = np.abs(a.astype(wide)) @ np.abs(b.astype(wide))
    return float(np.max(np.abs(result.astype(wide) - reference) / sizes))
