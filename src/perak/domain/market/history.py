"""What a workload did before, by class: the living benchmark, and what identifies a workload."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from perak.domain.hardware.specs import find_gpu
from perak.domain.job import JobSpec

RENTERS_MIN = 5
"""Other renters' runs are shown only as aggregates of as many renters or more: fewer would tell of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Finished runs of one workload on one kind of device: quantiles of their seconds, from signed receipts.

    `own`: the renter's own runs; else all renters', RENTERS_MIN or more. `device`: as `device_key` writes it.
    """

    device: str
    runs: int
    renters: int
    own: bool
    low_seconds: float
    median_seconds: float
    high_seconds: float
    median_joules: float | None = None
    failures: int = 0
    """Runs beside these that ended by a fault of node or device."""


def fingerprint(spec: JobSpec) -> str:
    """``sha256:<hex>`` of what determines a workload: image or packages, script, environment, files, inputs.

    Neither its name nor where it may run, at what price, or for how long. Two jobs of the same fingerprint do
    the same work on the same device; a changed script or work folder is another workload.
    """
    image = spec.image and (spec.image.digest or spec.image.name)
    python = spec.python and [spec.python.version, sorted(spec.python.packages)]
    inputs = sorted([each.path, each.digest or each.url] for each in spec.inputs)
    parts = [image, python, spec.setup, spec.run, sorted(spec.env.items()), spec.workdir_digest, inputs]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def device_key(*, model: str, gpu_count: int, cpu_milli: int, memory_bytes: int | None = None) -> str:
    """What times are kept by: so many GPUs of a variant, or so many cores of a processor."""
    if not gpu_count:
        return f"{cpu_milli}m x {model}"
    known = find_gpu(model, memory_bytes=memory_bytes)
    return f"{gpu_count} x {known.variant if known else model}"
