"""What a clearing is made of, as arrays: offers by class, jobs, the plan that matches them, and its welfare.

A class is what is alike to the market (model, region, grade, software life): performance, memory, power and
carbon intensity are the same within it, asks are not. Units: hours, GB, watts, g/kWh, kg, and one currency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVELS_MAX = 8
"""Sizes of groups (devices_per_node) that capacities are kept for; sizes between two count as the lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """Offers, and the classes that they are of; the last five arrays have a row a class."""

    kind: Ints
    """Each offer's class: a row of the arrays below."""
    devices: Ints
    price: Floats
    """The ask, per device-hour."""
    performance: Floats
    memory_gb: Floats
    power_w: Floats
    carbon_g_per_kwh: Floats
    region: Ints
    """A column of `Jobs.admits`."""

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def classes(self) -> int:
        return len(self.performance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Jobs: `devices` come in whole groups of `per_node`, each group on one offer, all of one class."""

    devices: Ints
    per_node: Ints
    memory_gb: Floats
    work: Floats
    """Hours of one device of performance 1."""
    value: Floats
    deadline_h: Floats
    """Infinite: none."""
    delay_cost_per_h: Floats
    carbon_price_per_kg: Floats
    admits: Flags
    """[job, region]: it may run there."""

    @property
    def count(self) -> int:
        return len(self.devices)

    def whole_gangs(self) -> Flags:
        """Those whose devices can be had in whole groups; no others are ever matched."""
        whole: Flags = self.devices % np.maximum(1, self.per_node) == 0
        return whole & (self.per_node > 0) & (self.devices > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Parts of offers for jobs, a row a part, at what the renter pays for a device-hour."""

    job: Ints
    offer: Ints
    devices: Ints
    pays: Floats

    @property
    def matched(self) -> int:
        return len(np.unique(self.job))


def runtime_h(jobs: Jobs, offers: Offers, job: Ints, kind: Ints) -> Floats:
    """Hours that each job of `job` takes on the class beside it in `kind`."""
    hours: Floats = jobs.work[job] / (jobs.devices[job] * offers.performance[kind])
    return hours


def worth(jobs: Jobs, offers: Offers, job: Ints, kind: Ints) -> Floats:
    """What each job's renter would pay at most on the class beside it: value less delay and carbon."""
    hours = runtime_h(jobs, offers, job, kind)
    kg = jobs.devices[job] * hours * offers.power_w[kind] * offers.carbon_g_per_kwh[kind] / 1e6
    worth: Floats = jobs.value[job] - jobs.delay_cost_per_h[job] * hours - jobs.carbon_price_per_kg[job] * kg
    return worth


def welfare(plan: Plan, jobs: Jobs, offers: Offers) -> float:
    """What the matched jobs are worth less what the devices cost their providers, in all."""
    kind = offers.kind[plan.offer]
    hours = runtime_h(jobs, offers, plan.job, kind)
    _, first = np.unique(plan.job, return_index=True)
    cost = plan.devices * hours * offers.price[plan.offer]
    return float(worth(jobs, offers, plan.job[first], kind[first]).sum() - cost.sum())
