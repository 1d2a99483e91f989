"""Which of PyTorch's wheels has kernels for a card.

The wheel that PyPI has is built for today's cards alone: on a V100 it installs, sees the card, and fails at
the first kernel. What a job would install is therefore compared with the card before money moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from perak.domain.facts.torch import TORCH_WHEELS

PATCHES_MAX = 4
"""No minor release of torch has had more patch releases."""
REMEMBERED_MAX = 1024
"""A market asks about the same few jobs and cards again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchWheels:
    """The wheels of one CUDA variant of one minor release of torch."""

    minor: tuple[int, int]
    variant: str
    on_pypi: bool
    architectures: tuple[str, ...]
    source: str

    def has_kernels_for(self, capability: str) -> bool:
        """Machine code runs on its own major architecture from its minor on; PTX on everything later."""
        card = _pair(capability)
        for each in self.architectures:
            built = _pair(each.removesuffix("+PTX"))
            if built[0] == card[0] and built[1] <= card[1]:
                return True
            if each.endswith("+PTX") and built <= card:
                return True
        return False

    @property
    def release(self) -> str:
        return f"{self.minor[0]}.{self.minor[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchChoice:
    """What to install. `variant` None: PyPI's wheel; else the wheels of that variant, of release `release`.

    `problem`: nothing that the job admits has kernels for the cards; says what has, and what to do.
    """

    variant: str | None = None
    release: str | None = None
    problem: str | None = None


@lru_cache(maxsize=REMEMBERED_MAX)
def choose_torch(
    packages: tuple[str, ...], capabilities: tuple[str, ...], variants: tuple[str, ...]
) -> TorchChoice:
    """The wheels of torch for a job with these `packages` on cards of these compute capabilities.

    `variants` are the CUDA variants that the node may install besides PyPI's. A job without torch, a card
    whose capability is unknown, and a release that the table lacks all get PyPI's, unchecked.
    """
    specifier = _torch_of(packages)
    if specifier is None or not capabilities:
        return TorchChoice()
    admitted = [each for each in WHEELS if _admits(specifier, each)]
    default = next((each for each in admitted if each.on_pypi), None)
    if default is None and not admitted:
        return TorchChoice()
    if default is not None and _cover(default, capabilities):
        return TorchChoice()
    fitting = [each for each in admitted if _cover(each, capabilities)]
    for each in fitting:
        if each.variant in variants:
            return TorchChoice(variant=each.variant, release=each.release)
    return TorchChoice(problem=_problem(default, capabilities))


def known_variants() -> tuple[str, ...]:
    """Every CUDA variant in the table, newest last."""
    return tuple(sorted({each.variant for each in WHEELS}))


def _problem(default: TorchWheels | None, capabilities: Sequence[str]) -> str:
    """In words: what the job would get, and what would fit."""
    has = "no such wheel"
    if default is not None:
        archs = default.architectures
        has = f"torch {default.release} ({default.variant}) for {archs[0]} to {archs[-1]}"
    fitting = [each for each in WHEELS if _cover(each, capabilities)]
    pypi = next((each for each in fitting if each.on_pypi), None)
    advice = []
    if pypi is not None:
        advice.append(f"write torch<{pypi.minor[0]}.{pypi.minor[1] + 1}")
    other = sorted({each.variant for each in fitting if not each.on_pypi})
    if other:
        advice.append(f"take a node that has PyTorch's {other[0]} wheels")
    return f"{has}; {' or '.join(advice) or 'no release of torch that is known here has them'}"


def _cover(wheels: TorchWheels, capabilities: Sequence[str]) -> bool:
    return all(wheels.has_kernels_for(each) for each in capabilities)


def _torch_of(packages: Sequence[str]) -> str | None:
    """The specifier of torch among the requirements ("" for any); None: torch is not named."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in packages:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == "torch":
            return str(requirement.specifier)
    return None


def _admits(specifier: str, wheels: TorchWheels) -> bool:
    from packaging.specifiers import SpecifierSet

    versions = [f"{wheels.release}.{patch}" for patch in range(PATCHES_MAX)]
    if not wheels.on_pypi:
        versions = [f"{version}+{wheels.variant}" for version in versions]
    return any(SpecifierSet(specifier).filter(versions))


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _wheels() -> tuple[TorchWheels, ...]:
    """The table by minor release, newest first."""
    found = [
        TorchWheels(
            minor=(2, minor),
            variant=variant,
            on_pypi=on_pypi,
            architectures=tuple(architectures.split()),
            source=source,
        )
        for first, last, variant, on_pypi, architectures, source in TORCH_WHEELS
        for minor in range(_pair(first)[1], _pair(last)[1] + 1)
    ]
    return tuple(sorted(found, key=lambda each: (each.minor, each.variant), reverse=True))


WHEELS = _wheels()
