"""Markets of our own making for the benchmarks, as tables: each with its parameters in its docstring.

The tables have the columns of `perak market clear`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Table = dict[str, Any]

MODELS = {
    # model: performance (V100 = 1), memory in GB, watts, median ask per device-hour
    "P100": (0.6, 16, 250, 0.10),
    "V100": (1.0, 16, 300, 0.18),
    "V100-32": (1.0, 32, 300, 0.24),
    "T4": (0.4, 16, 70, 0.12),
    "A10": (1.1, 24, 150, 0.30),
    "A100": (2.4, 40, 400, 0.97),
    "A100-80": (2.6, 80, 400, 1.39),
    "H100": (5.5, 80, 700, 2.40),
}
REGIONS = {"FR": 56.0, "SE": 30.0, "DE": 380.0, "PL": 700.0, "US-CA": 240.0, "US-TX": 410.0}
GRADES = {"A": 1.1, "B": 1.0, "C": 0.85}
"""Factor of the ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a market is drawn from. `demand`: devices asked for per device offered; None: as it falls."""

    offers: int
    jobs: int
    demand: float | None = 1.1
    ask_sigma: float = 0.25
    """Spread of asks within a class: a lognormal's."""
    work_sigma: float = 1.0
    gangs: tuple[tuple[int, float], ...] = ((1, 0.35), (2, 0.2), (4, 0.2), (8, 0.15), (16, 0.1))
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    """Devices of an offer; their weights are set so that `demand` holds."""
    anywhere: float = 0.5
    """Share of jobs that may run in any region; the others name one to three."""


def standard(shape: Shape, seed: int) -> tuple[Table, Table]:
    """(offers, jobs): 144 classes (8 models, 6 regions, 3 grades); gangs, residency, deadlines.

    Work is lognormal around 8 h of a V100 for each device; value 0.6 to 3 times what the work costs on a V100
    at its median ask; half the jobs have deadlines of 1.2 to 6 times their hours on V100s; delay costs up to
    a fifth of the value spread over those hours; a third price carbon at 0.05 to 0.3 a kg.
    """
    rng = np.random.default_rng(seed)
    jobs = _jobs(rng, shape)
    sizes = np.array(shape.sizes)
    mean = sizes.mean() if shape.demand is None else jobs["devices"].sum() / shape.demand / shape.offers
    devices = rng.choice(sizes, shape.offers, p=_weights(sizes, mean))
    models, regions, grades = list(MODELS), list(REGIONS), list(GRADES)
    model = rng.integers(0, len(models), shape.offers)
    region = rng.integers(0, len(regions), shape.offers)
    grade = rng.integers(0, len(grades), shape.offers)
    return _offers(rng, shape, devices, model, region, grade), jobs


def thin(classes: int, seed: int) -> tuple[Table, Table]:
    """(offers, jobs): 10 offers a class; whales; demand that comes from correlated regions.

    A class is a model in a region of its own grade, drawn at random. As many jobs as offers. Every fiftieth
    job is a whale: 64 devices in groups of 8, worth 3 times as much a device. Regions fill together: two
    thirds of the jobs name the same two regions. Asks spread by a lognormal of 0.5.
    """
    rng = np.random.default_rng(seed)
    shape = Shape(offers=10 * classes, jobs=10 * classes, ask_sigma=0.5, anywhere=0.2)
    jobs = _jobs(rng, shape)
    whale = np.arange(shape.jobs) % 50 == 0
    jobs["devices"] = np.where(whale, 64, jobs["devices"])
    jobs["devices_per_node"] = np.where(whale, 8, jobs["devices_per_node"])
    jobs["work"] = np.where(whale, jobs["work"] * 16, jobs["work"])
    jobs["value"] = np.where(whale, jobs["value"] * 48, jobs["value"])
    crowd = rng.random(shape.jobs) < 2 / 3
    jobs["regions"] = [
        "DE;FR" if crowded else named for crowded, named in zip(crowd, jobs["regions"], strict=True)
    ]
    every = [(m, r, g) for m in range(len(MODELS)) for r in range(len(REGIONS)) for g in range(12)]
    picked = [every[i] for i in rng.choice(len(every), classes, replace=False)]
    kind = np.repeat(np.arange(classes), 10)
    model, region, grade = (np.array([p[axis] for p in picked])[kind] for axis in range(3))
    devices = rng.choice(np.array([1, 2, 4, 8]), shape.offers, p=[0.2, 0.2, 0.3, 0.3])
    return _offers(rng, shape, devices, model, region, grade), jobs


def _jobs(rng: np.random.Generator, shape: Shape) -> Table:
    n = shape.jobs
    size, weight = zip(*shape.gangs, strict=True)
    devices = rng.choice(np.array(size), n, p=np.array(weight) / sum(weight))
    per_node = np.minimum(devices, 2 ** rng.integers(0, 4, n))
    hours = rng.lognormal(np.log(8), shape.work_sigma, n)
    work = devices * hours
    value = work * MODELS["V100"][3] * rng.uniform(0.6, 3.0, n)
    deadline = np.where(rng.random(n) < 0.5, hours * rng.uniform(1.2, 6.0, n), np.inf)
    names = list(REGIONS)
    regions = [
        "" if free else ";".join(sorted(rng.choice(names, rng.integers(1, 4), replace=False)))
        for free in rng.random(n) < shape.anywhere
    ]
    return {
        "job_id": [f"j{i}" for i in range(n)],
        "devices": devices,
        "devices_per_node": per_node,
        "memory_gb": rng.choice(
            np.array([8.0, 16.0, 24.0, 32.0, 40.0, 80.0]), n, p=[0.3, 0.3, 0.15, 0.1, 0.1, 0.05]
        ),
        "work": work,
        "value": value,
        "deadline_h": deadline,
        "delay_cost_per_h": value / hours * rng.uniform(0.0, 0.2, n),
        "carbon_price_per_kg": np.where(rng.random(n) < 1 / 3, rng.uniform(0.05, 0.3, n), 0.0),
        "regions": regions,
    }


def _offers(
    rng: np.random.Generator, shape: Shape, devices: Any, model: Any, region: Any, grade: Any
) -> Table:
    facts = np.array(list(MODELS.values()))[model]
    steps = np.array([*GRADES.values(), *(1.0 + 0.01 * i for i in range(20))])[grade]
    names = [*GRADES, *(f"C{i}" for i in range(20))]
    carbon = np.array(list(REGIONS.values()))[region]
    return {
        "offer_id": [f"o{i}" for i in range(shape.offers)],
        "model": [list(MODELS)[m] for m in model],
        "region": [list(REGIONS)[r] for r in region],
        "grade": [names[g] for g in grade],
        "devices": devices,
        "price_per_device_hour": facts[:, 3] * steps * rng.lognormal(0.0, shape.ask_sigma, shape.offers),
        "performance": facts[:, 0],
        "memory_gb": facts[:, 1],
        "power_w": facts[:, 2],
        "carbon_g_per_kwh": carbon,
    }


def _weights(sizes: Any, mean: float) -> Any:
    """Weights of the sizes, geometric in their rank, with the mean asked for (or as near as they allow)."""
    rank = np.arange(len(sizes))
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(middle * rank)
        weights /= weights.sum()
        low, high = (middle, high) if weights @ sizes < mean else (low, middle)
    return weights
