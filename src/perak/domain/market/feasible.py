"""Does a job fit an offer, and if not, in which dimension?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from perak.domain.hardware.software import package_problem
from perak.domain.hardware.specs import find_gpu
from perak.domain.hardware.standing import UNGRADED, Standing, suffices
from perak.domain.hardware.torch import choose_torch, driver_cuda_of
from perak.domain.isolation import LACKS, MEMORY_BYTES_MIN
from perak.domain.job import JobSpec
from perak.domain.market.windows import first_claim, in_window, left_until, run_until
from perak.domain.offer import Device, Offer
from perak.domain.regions import lies_in
from perak.domain.units import charge, format_bytes, format_duration, format_money

NAMES_MAX = 4096
"""Pairs of names (wanted, offered) whose comparison is remembered: a market sees few, a stranger many."""

_BRANDS = re.compile("nvidia|geforce|tesla|quadro|amd|radeon|instinct|graphics|generation")
_VARIANT = re.compile(r"pcie|sxm[0-9]*|nvl|dgxs|fhhl|hbm[0-9]*e?|[0-9]+gi?b")
"""Words that tell variants of one card apart: how it is connected, and its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One dimension in which an offer fails a job. `now_only`: it would fit when the offer is idle."""

    dimension: str
    needed: str
    available: str
    now_only: bool = False

    def __str__(self) -> str:
        return f"{self.dimension}: needs {self.needed}, has {self.available}"


NO_STANDINGS: Mapping[str, Standing] = {}
"""Nothing is known of any device."""


def normal_model(name: str) -> str:
    """A GPU model's name for comparison: ``NVIDIA GeForce RTX 3090`` and ``rtx3090`` are the same.

    What tells variants of one card apart (connector, memory) is left out: ``A100-SXM4-80GB`` is ``a100``.
    """
    return _parts(name)[0]


def model_fits(wanted: tuple[str, ...], actual: str) -> bool:
    """Whether a model `actual` is one of `wanted` (none: any).

    ``V100`` admits ``Tesla V100-SXM2-16GB``, and ``A100 80GB`` only variants that say so. A letter or word
    more is another card: ``L40`` does not admit ``L40S``, ``RTX 3080`` neither the Ti nor the laptop's.
    """
    return not wanted or any(_is_model(name, actual) for name in wanted)


@lru_cache(maxsize=NAMES_MAX)
def _is_model(wanted: str, actual: str) -> bool:
    model, variant = _parts(wanted)
    has_model, has_variant = _parts(actual)
    models = {has_model}
    known = find_gpu(actual)
    if known is not None:
        models.add(normal_model(known.model))
        if actual in known.names:  # A bare model may be any of its variants.
            has_variant |= _parts(known.variant)[1]
    return model != "" and model in models and variant <= has_variant


def _parts(name: str) -> tuple[str, frozenset[str]]:
    """(model, what tells its variants apart), both without the maker's brands."""
    words = re.findall(r"[a-z0-9]+", _BRANDS.sub(" ", name.lower()))
    variant = frozenset(word for word in words if _VARIANT.fullmatch(word))
    return "".join(word for word in words if word not in variant), variant


def fitting_devices(
    spec: JobSpec,
    devices: tuple[Device, ...],
    torch_variants: tuple[str, ...] = (),
    standings: Mapping[str, Standing] = NO_STANDINGS,
) -> tuple[Device, ...]:
    """The devices that the job's model, memory, grade and packages admit, in order of index."""
    return tuple(
        d
        for d in graded_devices(spec, large_enough_devices(spec, devices), standings)
        if _cuda_problem(spec, d, torch_variants) is None
    )


def graded_devices(
    spec: JobSpec, devices: tuple[Device, ...], standings: Mapping[str, Standing]
) -> tuple[Device, ...]:
    """Those of the grade that the job asks for, or better."""
    if spec.min_grade is None:
        return devices
    return tuple(d for d in devices if suffices(standings.get(d.uuid, UNGRADED), spec.min_grade))


def large_enough_devices(spec: JobSpec, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The devices that the job's model and memory requirements admit, whatever it installs on them."""
    wanted = spec.resources
    fitting = (
        d
        for d in devices
        if model_fits(wanted.gpu_models, d.model) and d.memory_bytes >= wanted.gpu_memory_bytes
    )
    return tuple(sorted(fitting, key=lambda d: d.index))


def _cuda_problem(spec: JobSpec, device: Device, torch_variants: tuple[str, ...]) -> str | None:
    """Why the job's packages would not run on the device and its driver; None: they would, or nothing is
    known."""
    if spec.python is None or device.compute_capability is None:
        return None
    driver_cuda = driver_cuda_of(device.cuda, device.driver)
    packages, capability = spec.python.packages, device.compute_capability
    torch = choose_torch(packages, (capability,), torch_variants, driver_cuda).problem
    return torch or package_problem(packages, capability, driver_cuda)


def price_for(spec: JobSpec, offer: Offer) -> int | None:
    """The ask that applies to this job in micro-units per device-hour, or None where it isn't offered."""
    return offer.ask.price_gpu if spec.resources.gpu_count else offer.ask.price_cpu


def window_cost(spec: JobSpec, price: int) -> int:
    """What a run over the whole of its max_duration, which is the window's length, costs at `price`."""
    return charge(
        price_per_device_hour=price,
        devices_milli=spec.resources.devices_milli,
        seconds=spec.limits.duration_seconds,
    )


def misfits(spec: JobSpec, offer: Offer, *, now: datetime) -> tuple[Misfit, ...]:
    """Every dimension in which `offer` fails `spec` at `now` (UTC); empty: it fits.

    A job that reserves a window is held against what of the offer is free in it (`Offer.taken`), any other
    against what is free now and stays so for as long as it may run.
    """
    if spec.reserve is not None:
        now = max(now, spec.reserve.start_at)
        offer = in_window(offer, spec.reserve, now=now)
    capacity = (*_gpu_misfits(spec, offer), *_vector_misfits(spec, offer))
    return (
        *_availability(offer, now),
        *(capacity or _reserved_misfits(spec, offer, now)),
        *_python_misfits(spec, offer),
        *_region_misfits(spec, offer),
        *_term_misfits(spec, offer, now),
        *_bring_misfits(spec, offer),
        *_grant_misfits(spec, offer),
        *_isolation_misfits(spec, offer),
        *_tier_misfits(spec, offer),
        *_price_misfits(spec, offer),
    )


def _availability(offer: Offer, now: datetime) -> tuple[Misfit, ...]:
    if offer.state != "open" or not offer.accepting:
        has = "the offer is " + offer.state if offer.state != "open" else "the node takes no new work now"
        return (Misfit(dimension="availability", needed="an open offer", available=has, now_only=True),)
    hours = offer.ask.hours
    minute = now.hour * 60 + now.minute
    if hours and not any(h.open_at(weekday=now.isoweekday(), minute=minute) for h in hours):
        return (
            Misfit(
                dimension="hours", needed=f"open at {now:%a %H:%M} UTC", available="closed", now_only=True
            ),
        )
    return ()


def _gpu_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    wanted = spec.resources
    if not wanted.gpu_count:
        return ()
    of_model = [d for d in offer.ask.devices if model_fits(wanted.gpu_models, d.model)]
    if not of_model:
        has = ", ".join(sorted({d.model for d in offer.ask.devices})) or "no GPU"
        return (Misfit(dimension="gpu", needed=" or ".join(wanted.gpu_models) or "a GPU", available=has),)
    large_enough = large_enough_devices(spec, offer.ask.devices)
    if not large_enough:
        largest = max(d.memory_bytes for d in of_model)
        return (
            Misfit(
                dimension="gpu_memory",
                needed=format_bytes(wanted.gpu_memory_bytes),
                available=format_bytes(largest),
            ),
        )
    graded = graded_devices(spec, large_enough, offer.standings)
    if not graded:
        has = ", ".join(sorted({offer.standing_of(each).label for each in large_enough}))
        return (Misfit(dimension="grade", needed=f"{spec.min_grade} or better", available=has),)
    fitting = fitting_devices(spec, graded, offer.ask.torch_variants, offer.standings)
    if not fitting:
        first = graded[0]
        return (
            Misfit(
                dimension="cuda",
                needed=f"kernels for compute capability {first.compute_capability} ({first.model}) "
                f"and driver {first.driver or 'of an unknown version'}",
                available=_cuda_problem(spec, first, offer.ask.torch_variants) or "none",
            ),
        )
    free = fitting_devices(spec, offer.free_devices, offer.ask.torch_variants, offer.standings)
    if len(free) < wanted.gpu_count:
        return (
            Misfit(
                dimension="gpu_count",
                needed=str(wanted.gpu_count),
                available=f"{len(free)} free of {len(fitting)}",
                now_only=len(fitting) >= wanted.gpu_count,
            ),
        )
    return ()


def _vector_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    wanted, ask = spec.resources, offer.ask
    dimensions = (
        ("cpu", wanted.cpu_milli, offer.free_cpu_milli, ask.cpu_milli, _cores),
        ("memory", wanted.memory_bytes, offer.free_memory_bytes, ask.memory_bytes, format_bytes),
        ("disk", wanted.disk_bytes, offer.free_disk_bytes, ask.disk_bytes, format_bytes),
    )
    return tuple(
        Misfit(
            dimension=name,
            needed=show(needed),
            available=f"{show(max(0, free))} free of {show(whole)}",
            now_only=needed <= whole,
        )
        for name, needed, free, whole, show in dimensions
        if needed > free
    )


def _reserved_misfits(spec: JobSpec, offer: Offer, now: datetime) -> tuple[Misfit, ...]:
    """Whether what is free now is somebody's before the run would have ended."""
    if not offer.reserved or spec.reserve is not None:
        return ()
    until = run_until(spec, now=now)
    left = left_until(offer, now=now, until=until)
    if left is offer or not (*_gpu_misfits(spec, left), *_vector_misfits(spec, left)):
        return ()
    first = first_claim(offer, now=now, until=until)
    assert first is not None, "what is less was claimed"
    return (
        Misfit(
            dimension="reserved",
            needed=f"room until {until:%a %d %b %H:%M} UTC, its max_duration and what precedes it",
            available=f"room until {first.start_at:%a %d %b %H:%M} UTC, when another's window begins",
            now_only=True,
        ),
    )


def _cores(milli: int) -> str:
    return "1 core" if milli == 1000 else f"{milli / 1000:g} cores"


def _python_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    if spec.python is None or spec.python.version in offer.ask.pythons:
        return ()
    has = ", ".join(offer.ask.pythons) or "none"
    return (Misfit(dimension="python", needed=spec.python.version, available=has),)


def _region_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    if not spec.regions or any(lies_in(offer.ask.region, region) for region in spec.regions):
        return ()
    wanted = " or ".join(spec.regions)
    return (Misfit(dimension="region", needed=wanted, available=offer.ask.region),)


def _term_misfits(spec: JobSpec, offer: Offer, now: datetime) -> tuple[Misfit, ...]:
    """How short a job the provider takes, and until when there is a machine at all."""
    found = []
    least, longest = offer.ask.min_duration_seconds, spec.limits.duration_seconds
    if longest < least:
        found.append(
            Misfit(
                dimension="min_duration",
                needed=f"an offer for {format_duration(longest)}",
                available=f"{format_duration(least)} or more",
            )
        )
    left = offer.ask.seconds_left(now=now)
    asked = spec.limits.max_duration_seconds or max(1, least)
    if spec.reserve is not None:
        asked = max(1, int((spec.reserve.end_at - now).total_seconds()))
    if left is not None and left < asked:
        found.append(
            Misfit(
                dimension="available_until",
                needed=f"{format_duration(asked)}",
                available=f"{format_duration(left)} until the provider takes it back",
            )
        )
    return tuple(found)


def _grant_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    if not spec.network_allow or "network" in offer.ask.grants:
        return ()
    wanted = ", ".join(spec.network_allow)
    return (Misfit(dimension="network", needed=wanted, available="the provider lets no job out"),)


def _bring_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    """What a job brings along and the node has no place for."""
    kinds = {each.url.partition(":")[0] for each in spec.inputs}
    wanted = [("image", "image", "a container image")] if spec.image is not None else []
    wanted += [("inputs", kind, f"an input by {kind}") for kind in sorted(kinds)]
    has = ", ".join(offer.ask.takes) or "neither images nor inputs"
    return tuple(
        Misfit(dimension=dimension, needed=needed, available=has)
        for dimension, kind, needed in wanted
        if kind not in offer.ask.takes
    )


def _isolation_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    with_devices = spec.resources.gpu_count > 0
    if spec.isolation is None or offer.ask.tier_for(spec.isolation, with_devices=with_devices) is not None:
        return ()
    has = [each.tier for each in offer.ask.sandboxes() if each.devices or not with_devices]
    kind = " for GPU jobs" if with_devices else ""
    return (
        Misfit(
            dimension="isolation",
            needed=f"{spec.isolation} or more",
            available=(", ".join(has) or "none") + kind,
        ),
    )


def _tier_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    """What the tier that the job would be in can't give it: the lightest that does, which lacks the least."""
    tier = offer.ask.tier_for(spec.isolation, with_devices=spec.resources.gpu_count > 0)
    lacks = LACKS.get(tier or "", frozenset())
    wanted = (
        ("secrets", spec.secrets, "secrets in the sandbox"),
        ("network", spec.network_allow, "a network in the sandbox"),
    )
    found = [
        Misfit(dimension=dimension, needed=needed, available=f"none in {tier} yet")
        for dimension, wants, needed in wanted
        if wants and dimension in lacks
    ]
    least, has = MEMORY_BYTES_MIN.get(tier or "", 0), spec.resources.memory_bytes
    if has < least:
        needed, given = format_bytes(least), format_bytes(has)
        found.append(Misfit(dimension="memory", needed=f"{needed} in {tier}", available=f"{given} asked for"))
    return tuple(found)


def _price_misfits(spec: JobSpec, offer: Offer) -> tuple[Misfit, ...]:
    price, bid = price_for(spec, offer), spec.limits.max_price
    if price is None:
        kind = "GPU" if spec.resources.gpu_count else "CPU"
        return (Misfit(dimension="price", needed=f"a price for {kind} jobs", available="none posted"),)
    if bid is not None and price > bid:
        return (
            Misfit(
                dimension="price",
                needed=f"{format_money(bid)}/h or less",
                available=f"{format_money(price)}/h",
            ),
        )
    return _window_cost_misfits(spec, price)


def _window_cost_misfits(spec: JobSpec, price: int) -> tuple[Misfit, ...]:
    """A window is held in full, so that its whole cost is held against max_cost."""
    most, cost = spec.limits.max_cost, window_cost(spec, price)
    if spec.reserve is None or most is None or cost <= most:
        return ()
    return (
        Misfit(
            dimension="max_cost",
            needed=f"{format_money(most)} or less for the window",
            available=format_money(cost),
        ),
    )
