"""What is known of a GPU by its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from perak.domain.facts.gpu_speeds import GPU_SPEEDS
from perak.domain.facts.gpus import GPUS

AMD_TARGET = "gfx"
"""What the names of LLVM's targets for AMD's GPUs begin with."""


NAMES_MAX = 4096
"""Names whose GPU is remembered: a market asks for few, a stranger for many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """A GPU as its data sheet has it, per GPU where a card has several. `names` are what its driver calls it.

    Rates are peaks in 1e12 FLOP/s at the maker's boost clock: of the vector units, and, as `tensor_*`, of
    the tensor or matrix cores (dense, accumulated in FP32). None: the maker gives none, or has no such units.
    """

    model: str
    variant: str
    names: tuple[str, ...]
    memory_gib: int
    tdp_watts: int
    compute_capability: str | None
    """NVIDIA's, like ``7.0``; None for other makers."""
    gfx: str | None
    """AMD's, as LLVM names the target: ``gfx90a``; None for other makers."""
    architecture: str
    year: int
    source: str
    launched: str
    """The day, like ``2017-06-21``."""
    bandwidth_gbs: int
    """Memory bandwidth in 1e9 bytes/s."""
    fp32_tflops: float | None
    fp16_tflops: float | None
    bf16_tflops: float | None
    fp64_tflops: float | None
    tensor_fp16_tflops: float | None
    tensor_bf16_tflops: float | None
    pci_ids: tuple[str, ...]
    """Vendor and device, like ``10de:1db4``; one may belong to several cards."""
    speed_source: str

    @property
    def best_fp16_tflops(self) -> float | None:
        """The faster of vector and tensor units at FP16; None: neither is known."""
        return max(
            (each for each in (self.fp16_tflops, self.tensor_fp16_tflops) if each is not None), default=None
        )


@lru_cache(maxsize=NAMES_MAX)
def find_gpu(name: str, *, memory_bytes: int | None = None) -> GpuSpec | None:
    """The GPU that its driver, a person or a price list calls `name`; None if it is not in the table.

    Of variants that share a driver's name (``GeForce RTX 3080``, of 10 and 12 GB) the one whose memory is
    nearest to `memory_bytes`. A bare model (``V100``) is so, too; of several alike, or without it, the one
    that draws most, so that energy is not understated.
    """
    key = _key(name)
    if key in _BY_NAME:
        named = _BY_NAME[key]
        alike = [spec for spec in _BY_MODEL[_key(named.model)] if not spec.names]
        if memory_bytes is None or name == named.variant or not named.names or not alike:
            return named
        gib = memory_bytes / 2**30
        return min((named, *alike), key=lambda spec: abs(spec.memory_gib - gib))
    variants = _BY_MODEL.get(key, ())
    if memory_bytes is None:
        return max(variants, key=lambda spec: spec.tdp_watts, default=None)
    gib = memory_bytes / 2**30
    return min(variants, key=lambda spec: (abs(spec.memory_gib - gib), -spec.tdp_watts), default=None)


def gpus_of_pci_id(pci_id: str) -> tuple[GpuSpec, ...]:
    """The GPUs that a PCI vendor and device id like ``10de:1db4`` may be; empty: none that is known."""
    return _BY_PCI_ID.get(pci_id.lower(), ())


def _key(name: str) -> str:
    """The letters and digits of a name, without the brand that some give and some leave out."""
    text = name.lower()
    for brand in ("nvidia", "geforce", "tesla", "graphics", "amd", "radeon", "instinct"):
        text = text.replace(brand, "")
    return "".join(character for character in text if character.isalnum())


def _specs() -> tuple[GpuSpec, ...]:
    speeds = {row[0]: row[1:] for row in GPU_SPEEDS}
    specs = []
    for model, variant, names, memory_gib, tdp_watts, capability, architecture, year, source in GPUS:
        launched, bandwidth, fp32, fp16, bf16, fp64, tensor_fp16, tensor_bf16, ids, basis = speeds[variant]
        is_amd = capability.startswith(AMD_TARGET)
        vendor = "1002" if is_amd else "10de"
        specs.append(
            GpuSpec(
                model=model,
                variant=variant,
                names=names,
                memory_gib=memory_gib,
                tdp_watts=tdp_watts,
                compute_capability=None if is_amd else capability,
                gfx=capability if is_amd else None,
                architecture=architecture,
                year=year,
                source=source,
                launched=launched,
                bandwidth_gbs=bandwidth,
                fp32_tflops=fp32,
                fp16_tflops=fp16,
                bf16_tflops=bf16,
                fp64_tflops=fp64,
                tensor_fp16_tflops=tensor_fp16,
                tensor_bf16_tflops=tensor_bf16,
                pci_ids=tuple(f"{vendor}:{each}" for each in ids.split()),
                speed_source=basis,
            )
        )
    return tuple(specs)


SPECS = _specs()
_BY_NAME = {_key(name): spec for spec in SPECS for name in (*spec.names, spec.variant)}
_BY_MODEL = {
    _key(model): tuple(spec for spec in SPECS if spec.model == model) for model in {s.model for s in SPECS}
}
_BY_PCI_ID = {
    each: tuple(spec for spec in SPECS if each in spec.pci_ids)
    for each in {i for s in SPECS for i in s.pci_ids}
}
