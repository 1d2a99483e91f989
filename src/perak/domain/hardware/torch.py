"""Which of PyTorch's wheels has kernels for a card.

The wheel that PyPI has is built for today's cards alone: on a V100 it installs, sees the card, and fails at
the first kernel; with a driver older than its CUDA it sees no card at all. What a job would install is
therefore compared with card and driver before money moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from perak.domain.facts.cuda import CUDA_DRIVERS
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

    @property
    def cuda(self) -> tuple[int, int]:
        """The CUDA release that they were built with."""
        digits = self.variant.removeprefix("cu")
        return int(digits[:-1]), int(digits[-1])

    def runs_with(self, driver_cuda: str | None) -> bool:
        """Whether a driver for that CUDA release runs them: one of the same major release, or of a later."""
        return driver_cuda is None or _pair(driver_cuda)[0] >= self.cuda[0]

    def has_kernels_for(self, capability: str, driver_cuda: str | None = None) -> bool:
        """Machine code runs on its own major architecture from its minor on; PTX on everything later, where
        the driver is no older than the CUDA release that wrote it."""
        card = _pair(capability)
        for each in self.architectures:
            built = _pair(each.removesuffix("+PTX"))
            if built[0] == card[0] and built[1] <= card[1]:
                return True
            translates = driver_cuda is None or _pair(driver_cuda) >= self.cuda
            if each.endswith("+PTX") and built <= card and translates:
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
    packages: tuple[str, ...],
    capabilities: tuple[str, ...],
    variants: tuple[str, ...],
    driver_cuda: str | None = None,
) -> TorchChoice:
    """The wheels of torch for a job with these `packages` on cards of these compute capabilities.

    `variants` are the CUDA variants that the node may install besides PyPI's; `driver_cuda` is the newest
    CUDA release that its driver knows, like ``12.4`` (None: not told, and not judged). A job without torch, a
    card whose capability is unknown, and a release that the table lacks all get PyPI's, unchecked.
    """
    specifier = _torch_of(packages)
    if specifier is None or not capabilities:
        return TorchChoice()
    admitted = [each for each in WHEELS if _admits(specifier, each)]
    default = next((each for each in admitted if each.on_pypi), None)
    if default is None and not admitted:
        return TorchChoice()
    if default is not None and _cover(default, capabilities, driver_cuda):
        return TorchChoice()
    fitting = [each for each in admitted if _cover(each, capabilities, driver_cuda)]
    for each in fitting:
        if each.variant in variants:
            return TorchChoice(variant=each.variant, release=each.release)
    return TorchChoice(problem=_problem(default, capabilities, driver_cuda))


def known_variants() -> tuple[str, ...]:
    """Every CUDA variant in the table, newest last."""
    return tuple(sorted({each.variant for each in WHEELS}))


def driver_cuda_of(cuda: str | None, driver: str | None) -> str | None:
    """The newest CUDA release that a driver knows, as it tells, else by its version; None: neither is told.

    By its version it is the first release that the driver's branch may be of.
    """
    if cuda is not None:
        return cuda
    branch = (driver or "").partition(".")[0]
    if not branch.isdigit():
        return None
    majors = [major for major, first, _ in CUDA_DRIVERS if int(branch) >= first]
    return f"{max(majors, default=CUDA_DRIVERS[0][0] - 1)}.0"


def _problem(default: TorchWheels | None, capabilities: Sequence[str], driver_cuda: str | None) -> str:
    """In words: what the job would get, and what would fit."""
    has = "no such wheel"
    if default is not None and not default.runs_with(driver_cuda):
        has = f"torch {default.release} ({default.variant}) needs {driver_for(default)}, it has {driver_cuda}"
    elif default is not None:
        archs = default.architectures
        has = f"torch {default.release} ({default.variant}) for {archs[0]} to {archs[-1]}"
    fitting = [each for each in WHEELS if _cover(each, capabilities, driver_cuda)]
    pypi = next((each for each in fitting if each.on_pypi), None)
    advice = []
    if pypi is not None:
        advice.append(f"write torch<{pypi.minor[0]}.{pypi.minor[1] + 1}")
    other = sorted({each.variant for each in fitting if not each.on_pypi})
    if other:
        advice.append(f"take a node that has PyTorch's {other[0]} wheels")
    return f"{has}; {' or '.join(advice) or 'no release of torch that is known here fits'}"


def driver_for(wheels: TorchWheels) -> str:
    """In words: the driver that the wheels need."""
    first = next((driver for major, driver, _ in CUDA_DRIVERS if major == wheels.cuda[0]), None)
    newer = f" ({first} or newer)" if first is not None else ""
    return f"a driver for CUDA {wheels.cuda[0]}{newer}"


def _cover(wheels: TorchWheels, capabilities: Sequence[str], driver_cuda: str | None) -> bool:
    return wheels.runs_with(driver_cuda) and all(
        wheels.has_kernels_for(each, driver_cuda) for each in capabilities
    )


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
