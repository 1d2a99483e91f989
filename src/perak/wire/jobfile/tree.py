"""A job as the tree of its job file, everything said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from perak.domain import job as domain
from perak.domain import units
from perak.domain.market.utility import PRESETS

T = TypeVar("T")


def spec_to_tree(spec: domain.JobSpec) -> dict[str, Any]:
    """The job as a tree that says everything, defaults included; `parse_job` of it gives the same job."""
    resources = spec.resources
    tree: dict[str, Any] = {
        "name": spec.name,
        "workdir": spec.workdir_digest,
        "setup": spec.setup,
        "run": spec.run,
        "env": dict(spec.env),
        "image": _image(spec.image),
        "secrets": {each.name: each.kind for each in spec.secrets},
        "inputs": {each.path: _source(each) for each in spec.inputs},
        "network": {"allow": list(spec.network_allow)} if spec.network_allow else None,
        "placement": {
            "isolation": spec.isolation,
            "regions": list(spec.regions),
            "min_grade": spec.min_grade,
        },
        "encrypt": spec.encrypt_to,
        "python": spec.python and {"version": spec.python.version, "packages": list(spec.python.packages)},
        "resources": {
            "gpu": list(resources.gpu_models),
            "gpu_count": resources.gpu_count,
            "gpu_memory": _bytes_text(resources.gpu_memory_bytes),
            "cpu": _cpu_text(resources.cpu_milli),
            "memory": _bytes_text(resources.memory_bytes),
            "disk": _bytes_text(resources.disk_bytes),
            "shm_size": _bytes_text(resources.shm_bytes),
        },
        "outputs": list(spec.outputs),
        "limits": {
            "max_price": _optional(spec.limits.max_price, lambda micros: f"{units.format_money(micros)}/h"),
            "max_cost": _optional(spec.limits.max_cost, units.format_money),
            "max_duration": _max_duration(spec),
            "max_carbon": _optional(spec.limits.max_carbon_grams, _grams_text),
        },
        "disconnect_grace": _duration_text(spec.disconnect_grace_seconds),
        "retry": {"max_attempts": spec.retry.max_attempts, "on": list(spec.retry.on)},
        "prefer": _prefer(spec.preference),
        "start": spec.start
        and {
            "within": _duration_text(spec.start.within_seconds),
            "deadline": _optional(spec.start.deadline_seconds, _duration_text),
        },
        "reserve": spec.reserve
        and {
            "start": spec.reserve.start_at.isoformat().replace("+00:00", "Z"),
            "for": _duration_text(spec.reserve.seconds),
        },
        "work": spec.work and {"device": spec.work.device, "hours": spec.work.hours},
        "functional_unit": spec.functional_unit
        and {"name": spec.functional_unit.name, "count": spec.functional_unit.count},
    }
    if not resources.gpu_count:
        for key in ("gpu", "gpu_count", "gpu_memory"):
            del tree["resources"][key]
    return _without_empty(tree)


def _max_duration(spec: domain.JobSpec) -> str | None:
    """Of a window it is the length, which `reserve` says."""
    return None if spec.reserve else _optional(spec.limits.max_duration_seconds, _duration_text)


def _image(image: domain.Image | None) -> str | dict[str, Any] | None:
    if image is None:
        return None
    name = f"{image.name}@{image.digest}" if image.digest else image.name
    return {"name": name, "credentials": image.credentials} if image.credentials else name


def _prefer(wanted: domain.Preference) -> str | dict[str, Any] | None:
    """The preset's name where its prices are still those that the job was given."""
    value = _optional(wanted.value, units.format_money)
    if wanted.name is not None and PRESETS.get(wanted.name) == replace(wanted, value=None):
        return {"preset": wanted.name, "value": value} if value else wanted.name
    if wanted == domain.Preference():
        return None
    return {
        "carbon_price": f"{units.format_money(wanted.carbon_price_per_kg)}/kg",
        "delay_cost": f"{units.format_money(wanted.delay_cost_per_hour)}/h",
        "value": value,
    }


def _source(each: domain.Input) -> str | dict[str, Any]:
    source = f"{each.url}@{each.digest}" if each.digest else each.url
    return {"source": source, "credentials": each.credentials} if each.credentials else source


# Quantities as text, exactly


def _bytes_text(size: int) -> str | int:
    for unit, factor in (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def _cpu_text(milli: int) -> str | int:
    return milli // 1000 if milli % 1000 == 0 else f"{milli}m"


def _duration_text(seconds: int) -> str:
    for unit, factor in (("h", 3600), ("m", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"


def _grams_text(grams: float) -> str:
    return f"{grams:.6f}".rstrip("0").rstrip(".") + "g"


def _optional(value: T | None, show: Callable[[T], str]) -> str | None:
    return None if value is None else show(value)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None or empty, here and one level down; only `retry.on: []` says something."""
    kept = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("env", "retry", "secrets", "inputs"):
            value = {k: v for k, v in value.items() if v is not None and v != []}
        if value is not None and value not in ([], {}):
            kept[key] = value
    return kept
