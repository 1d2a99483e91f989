"""What the compiled loops are given: arrays in named groups, which numba takes apart without a cost.

A *level* is a size of groups, ascending: a job of level m can use an offer with at least ``size[m]`` devices.
An *edge* is a job on a class that fits it. Offers are in the order of their classes, then asks.
"""

from __future__ import annotations

from typing import NamedTuple

from perak.domain.market.clearing import Flags, Floats, Ints


class Wants(NamedTuple):
    """What decides where jobs fit and what that is worth, by job."""

    devices: Ints
    level: Ints
    memory_gb: Floats
    work: Floats
    value: Floats
    deadline_h: Floats
    delay_cost_per_h: Floats
    carbon_price_per_kg: Floats
    admits: Flags
    whole: Flags
    """Its devices are whole groups."""


class Classes(NamedTuple):
    """What is alike within a class."""

    performance: Floats
    memory_gb: Floats
    kg_per_device_hour: Floats
    region: Ints


class Gangs(NamedTuple):
    """The jobs' shapes."""

    devices: Ints
    per_node: Ints
    level: Ints


class Stock(NamedTuple):
    """Offers by class and ask."""

    start: Ints
    """Each class's first offer; one more at the end. So below."""
    devices: Ints
    price: Floats
    by_size: Ints
    """Within each class the offers by size, then ask."""
    size: Ints
    table: Ints
    """[level, n]: devices in whole groups among n."""
    capacity: Ints
    """[class, level]: devices in whole groups."""
    device_start: Ints
    """Each class's first device."""
    ask_sum: Floats
    """The asks of all devices before each."""
    level_start: Ints
    """[level, class]: where the class's sums begin in the next, which has one more of them than capacity."""
    level_asks: Floats
    """The asks of the class's devices in whole groups before each, from 0 on."""


class Edges(NamedTuple):
    """Jobs on the classes that fit them, by job, then class."""

    start: Ints
    kind: Ints
    worth: Floats
    hours: Floats


class Stairs(NamedTuple):
    """What devices cost by the hours that they are used, [class, level, size of gang, bin of hours]."""

    at: Floats
    slope: Floats
    gangs: Ints
    """The sizes of gangs."""
    steps: Floats
    """Each bin's least hours."""
