"""How long software still runs on a card: a used one mostly dies of that first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from perak.domain.facts.cuda import CUDA_DRIVERS
from perak.domain.facts.software import BUILDS, CUDA, ROCM
from perak.domain.hardware.specs import GpuSpec
from perak.domain.hardware.torch import WHEELS

REMEMBERED_MAX = 1024
_NEWEST = "the newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareLife:
    """The last release of a software that runs on a card. `last` ``the newest``: none has dropped it yet."""

    software: str
    last: str
    note: str
    source: str


def software_life(spec: GpuSpec) -> tuple[SoftwareLife, ...]:
    """What is known of a card's software; what nobody dated is left out, and not taken for support."""
    if spec.gfx is not None:
        return tuple(
            SoftwareLife(
                software="ROCm",
                last=last or _NEWEST,
                note=f"target {spec.gfx}, as AMD lists it" + ("; more may run" if last else ""),
                source=source,
            )
            for targets, last, source in ROCM
            if spec.gfx in targets
        )
    if spec.compute_capability is None:
        return ()
    card = _pair(spec.compute_capability)
    found = []
    for first, until, last, driver, source in CUDA:
        if _pair(first) <= card <= _pair(until):
            note = f"driver {driver} is the last" if driver else "no driver has dropped it"
            found.append(SoftwareLife(software="CUDA", last=last or _NEWEST, note=note, source=source))
    return (*found, *_torch(spec.compute_capability), *_builds(card))


@lru_cache(maxsize=REMEMBERED_MAX)
def package_problem(packages: tuple[str, ...], capability: str, driver_cuda: str | None = None) -> str | None:
    """Why one of a job's packages (but torch, which `choose_torch` knows) has no kernels for a card.

    None: nothing of the kind is known. `driver_cuda`: the newest CUDA that the driver knows, like ``12.4``.
    """
    wanted = {each for text in packages for each in _names(text)}
    for software, variants, least, cuda, _ in BUILDS:
        named = next((each for each in variants if each in wanted), None)
        if named is None:
            continue
        if _pair(capability) < _pair(least):
            older = next(
                (v[0] for s, v, low, *_ in BUILDS if s == software and _pair(low) <= _pair(capability)), None
            )
            advice = f"; write {older}" if older else f"; no build of {software} that is known here has"
            return f"{named} has kernels for compute capability {least} and newer{advice}"
        if driver_cuda is not None and _pair(driver_cuda)[0] < cuda:
            first = next((driver for major, driver, _ in CUDA_DRIVERS if major == cuda), None)
            newer = f" ({first} or newer)" if first else ""
            return f"{named} needs a driver for CUDA {cuda}{newer}, it has one for {driver_cuda}"
    return None


def _torch(capability: str) -> tuple[SoftwareLife, ...]:
    """The newest release with a wheel for the card, and whether it is PyPI's own."""
    of_card = [each for each in WHEELS if each.has_kernels_for(capability)]
    if not of_card:
        return ()
    newest, pypi = of_card[0], next((each for each in of_card if each.on_pypi), None)
    last = _NEWEST if newest.minor == WHEELS[0].minor else newest.release
    note = f"as {newest.variant}" + (
        f"; from PyPI up to {pypi.release}" if pypi else "; never from PyPI alone"
    )
    return (SoftwareLife(software="PyTorch", last=last, note=note, source=newest.source),)


def _builds(card: tuple[int, int]) -> tuple[SoftwareLife, ...]:
    found: dict[str, SoftwareLife] = {}
    newest = {software: variants[0] for software, variants, *_ in reversed(BUILDS)}
    for software, variants, least, cuda, source in BUILDS:
        if software not in found and _pair(least) <= card:
            last = _NEWEST if variants[0] == newest[software] else f"those for CUDA {cuda}"
            label = {"jax": "JAX", "cupy": "CuPy", "tensorflow": "TensorFlow"}[software]
            found[software] = SoftwareLife(software=label, last=last, note=f"as {variants[0]}", source=source)
    return tuple(found.values())


def _names(text: str) -> tuple[str, ...]:
    """A requirement's name, plain and with each extra: ``jax[cuda12]>=0.5`` is jax and jax[cuda12]."""
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", text)
    if found is None:
        return ()
    name = re.sub(r"[-_.]+", "-", found[1]).lower()
    extras = [each.strip().lower() for each in (found[2] or "").split(",") if each.strip()]
    return (name, *(f"{name}[{extra}]" for extra in extras))


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
