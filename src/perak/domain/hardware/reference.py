"""What a device's throughput is compared with: its model over the network, else its data sheet."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perak.domain.facts import grades as facts
from perak.domain.hardware import inspection as names
from perak.domain.hardware.inspection import DeviceInspection
from perak.domain.hardware.specs import GpuSpec, find_gpu

CARDS_LEAST = 5
"""With fewer cards of a model a median says more of one owner's cooling than of the model."""
OWNERS_LEAST = 2
"""One owner's cards alone would be their own yardstick."""
COMPARED = (names.FP32, names.COPY, names.FP16, names.TENSOR_FP16, names.TENSOR_BF16)
"""Throughputs that are compared, the first two always."""
RECENT_MAX = 5
"""Inspections of a device whose median counts: one that was disturbed changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model's medians over the network, by check; `cards` and `owners` that they are of."""

    cards: int
    owners: int
    medians: Mapping[str, float]

    @property
    def suffices(self) -> bool:
        return self.cards >= CARDS_LEAST and self.owners >= OWNERS_LEAST


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """`worst`: the least ratio of the throughputs; None: nothing could be compared. `basis`: with what."""

    worst: float | None
    provisional: bool
    basis: str = ""


def throughputs(inspections: Iterable[DeviceInspection]) -> dict[str, float]:
    """A device's own medians over its last RECENT_MAX inspections, of what was measured."""
    ordered = sorted(inspections, key=lambda each: each.ended_at, reverse=True)
    found: dict[str, float] = {}
    for name in COMPARED:
        values = [value for each in ordered if (value := each.value(name)) is not None]
        if values:
            found[name] = statistics.median(values[:RECENT_MAX])
    return found


def reference_of(cards: Mapping[str, tuple[str, Mapping[str, float]]]) -> Reference:
    """Of a model's cards: by device, its owner and its `throughputs`."""
    medians = {}
    for name in COMPARED:
        values = [measured[name] for _, measured in cards.values() if name in measured]
        if len(values) >= CARDS_LEAST:
            medians[name] = statistics.median(values)
    return Reference(cards=len(cards), owners=len({owner for owner, _ in cards.values()}), medians=medians)


def spread_of(cards: Mapping[str, tuple[str, Mapping[str, float]]]) -> dict[str, tuple[float, ...]]:
    """The least, the nine deciles and the most of a model's throughputs, of CARDS_LEAST cards or more."""
    found = {}
    for name in COMPARED:
        values = sorted(measured[name] for _, measured in cards.values() if name in measured)
        if len(values) >= CARDS_LEAST:
            deciles = statistics.quantiles(values, n=10, method="inclusive")
            found[name] = tuple(round(each, 3) for each in (values[0], *deciles, values[-1]))
    return found


def ratios(found: DeviceInspection, measured: Mapping[str, float], reference: Reference | None) -> Ratios:
    """The device's `throughputs` to those of its model, FP32 and copy at least."""
    if names.FP32 not in measured or names.COPY not in measured:
        return Ratios(worst=None, provisional=True)
    if reference is not None and reference.suffices:
        shared = [name for name in measured if name in reference.medians]
        if names.FP32 in shared and names.COPY in shared:
            worst = min(measured[name] / reference.medians[name] for name in shared)
            return Ratios(worst=worst, provisional=False)
    spec = find_gpu(found.identity.model, memory_bytes=found.identity.nvml_memory_bytes)
    if spec is None or spec.fp32_tflops is None:
        if found.identity.kind == "cpu":
            return Ratios(worst=None, provisional=True)
        return Ratios(worst=None, provisional=True, basis="its model's data sheet is not known here")
    expected = sheet_throughputs(spec)
    worst = min(measured[name] / expected[name] for name in (names.FP32, names.COPY))
    few = f"fewer than {CARDS_LEAST} cards of its model, of {OWNERS_LEAST} owners, are known"
    return Ratios(worst=worst, provisional=True, basis=f"compared with the data sheet: {few}")


def sheet_throughputs(spec: GpuSpec) -> dict[str, float]:
    """What a healthy card of that data sheet reaches, about."""
    share = facts.COPY_REACHED.get(spec.model, facts.COPY_REACHED_DEFAULT)
    found = {names.COPY: spec.bandwidth_gbs * share}
    if spec.fp32_tflops is not None:
        found[names.FP32] = spec.fp32_tflops * facts.FLOPS_REACHED_DEFAULT
    return found
