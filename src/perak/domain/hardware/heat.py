"""When a part of a machine is too hot, and when it is cool again.

A part is hot from the temperature on at which it slows or stops itself. The limit is the part's own where it
tells one; the defaults below are for parts that do not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from perak.domain.report import Sensor

HYSTERESIS_CELSIUS = 5.0
"""A hot part is cool again this far below its limit: a fan's steps move a card by less."""
GPU_HOT_CELSIUS_DEFAULT = 90.0
"""Maximum GPU temperature, from the specification pages of NVIDIA's GeForce cards, read 2026-11: 90 °C (RTX
4090) to 93 °C (RTX 3090)."""
CPU_HOT_CELSIUS_DEFAULT = 95.0
"""Tjmax of AMD's Ryzen 7000 processors; Intel's tell theirs, mostly 100 °C."""
DEFAULT_SOURCE = "a common limit: this part tells none"


def hot_now(sensors: Iterable[Sensor], *, hot_before: Collection[str]) -> tuple[str, ...]:
    """The ids of the sensors that are hot now, given those that were; one without a reading is not."""
    return tuple(
        sorted(
            each.id
            for each in sensors
            if each.celsius >= each.hot_celsius - (HYSTERESIS_CELSIUS if each.id in hot_before else 0)
        )
    )


def told(sensor: Sensor) -> str:
    """For people: the part, its temperature and its limit."""
    limit = f"{sensor.hot_celsius:g} °C ({sensor.limit_source})"
    return f"{sensor.name} is at {sensor.celsius:g} °C, its limit is {limit}"
