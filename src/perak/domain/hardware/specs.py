"""What is known of a GPU by its name."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.facts.gpus import GPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """A GPU as its data sheet has it, per GPU where a card has several. `names` are what NVML calls it."""

    model: str
    variant: str
    names: tuple[str, ...]
    memory_gib: int
    tdp_watts: int
    compute_capability: str
    architecture: str
    year: int
    source: str


def find_gpu(name: str, *, memory_bytes: int | None = None) -> GpuSpec | None:
    """The GPU that NVML, a person or a price list calls `name`; None if it is not in the table.

    A bare model (``V100``) that has variants is the one whose memory is nearest to `memory_bytes`; of several
    alike, or without it, the one that draws most, so that energy is not understated.
    """
    key = _key(name)
    if key in _BY_NAME:
        return _BY_NAME[key]
    variants = _BY_MODEL.get(key, ())
    if memory_bytes is None:
        return max(variants, key=lambda spec: spec.tdp_watts, default=None)
    gib = memory_bytes / 2**30
    return min(variants, key=lambda spec: (abs(spec.memory_gib - gib), -spec.tdp_watts), default=None)


def _key(name: str) -> str:
    """The letters and digits of a name, without the brand that some give and some leave out."""
    text = name.lower()
    for brand in ("nvidia", "geforce", "tesla", "graphics"):
        text = text.replace(brand, "")
    return "".join(character for character in text if character.isalnum())


def _specs() -> tuple[GpuSpec, ...]:
    return tuple(
        GpuSpec(
            model=model,
            variant=variant,
            names=names,
            memory_gib=memory_gib,
            tdp_watts=tdp_watts,
            compute_capability=compute_capability,
            architecture=architecture,
            year=year,
            source=source,
        )
        for (
            model, variant, names, memory_gib, tdp_watts, compute_capability, architecture, year, source,
        ) in GPUS
    )  # fmt: skip


SPECS = _specs()
_BY_NAME = {_key(name): spec for spec in SPECS for name in (*spec.names, spec.variant)}
_BY_MODEL = {
    _key(model): tuple(spec for spec in SPECS if spec.model == model) for model in {s.model for s in SPECS}
}
