"""What a job file says of the market: preference, start window, declared work, regions and grade."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from perak.domain import job as domain
from perak.domain import units
from perak.domain.hardware.standing import GRADES
from perak.domain.market.utility import PRESETS, preset
from perak.domain.regions import is_known, nearest_region, normal_region
from perak.wire.jobfile.block import Block
from perak.wire.jobfile.values import Amount, duration, one_or_many, quantity, refuse

REGIONS_MAX = 50
WORK_HOURS_MAX = 24 * 366.0
"""As long as a job may run."""
DELAY_SECONDS_MAX = 30 * 86400
"""Longer than any forecast reaches; what waits longer is submitted later."""
UNITS_MAX = 1e15
"""Of a functional unit; tokens and samples come in trillions."""
CPU_DEVICE = "cpu"
"""The reference device of a job without GPUs: the cores that it asks for."""

_REGION = re.compile(r"[A-Z]{2,5}(-[A-Z0-9]{1,3})?")
_GRAMS = {"mg": 0.001, "g": 1.0, "kg": 1000.0, "t": 1_000_000.0}
_GRAMS_MAX = 1e12


def _per(unit: str) -> BeforeValidator:
    """Money per unit, like ``0.10/kg``."""

    def parse(value: object) -> int:
        return units.parse_money(str(value).strip().removesuffix(f"/{unit}").strip())

    return BeforeValidator(quantity(parse), json_schema_input_type=str | int | float)


def preference_of(value: object) -> object:
    """A preset stands for its prices."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise refuse(
                f"{value[:40]!r} is no preference; they are {', '.join(PRESETS)}, or prices such as "
                "{carbon_price: 0.10/kg, delay_cost: 0.50/h}"
            )
        return {"preset": value}
    if isinstance(value, Mapping) and not value:
        raise refuse(f"says nothing; give one of {', '.join(PRESETS)}, or carbon_price, delay_cost or value")
    return value


def grams(value: object) -> float:
    """Grams of ``2kg``, ``500g``, ``1mg`` or ``0.1t``."""
    match = re.fullmatch(r"([0-9]{1,13}(?:\.[0-9]{1,6})?)\s*(mg|g|kg|t)", str(value).strip())
    if isinstance(value, bool) or match is None:
        raise refuse(f"{str(value)[:40]!r} is not an amount of CO2e; write it like 2kg or 500g")
    amount = float(match[1]) * _GRAMS[match[2]]
    if amount > _GRAMS_MAX:
        raise refuse(f"{str(value)[:40]!r} is more CO2e than any job emits")
    return amount


def region(value: object) -> str:
    word = normal_region(value) if isinstance(value, str) else ""
    if not _REGION.fullmatch(word):
        raise refuse(f"{str(value)[:40]!r} is not a region; write it like EU, DE or US-CA")
    if not is_known(word):
        near = nearest_region(word)
        meant = f", did you mean {near}?" if near else "."
        raise refuse(
            f"{str(value)[:40]!r} is no region that is known{meant} Known are EU, EEA, WORLD, countries by "
            "their two letters (ISO 3166), such as DE, and states of the USA, such as US-CA"
        )
    return word


def grade(value: object) -> str:
    word = value.strip().upper() if isinstance(value, str) else ""
    if word not in GRADES:
        raise refuse(f"{str(value)[:40]!r} is no grade; from best to least they are {', '.join(GRADES)}")
    return word


def work_device(value: object) -> str:
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if text.lower() == CPU_DEVICE:
        return CPU_DEVICE
    from perak.domain.hardware.specs import find_gpu  # a table of cards, which few job files need

    if not 0 < len(text) <= 64 or find_gpu(text) is None:
        raise refuse(
            f"{str(value)[:40]!r} is no device whose speed is known; name a GPU such as V100 or A100, or cpu "
            "for the cores that the job asks for"
        )
    return text


def work_hours(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= WORK_HOURS_MAX:
        raise refuse(f"must be a number of hours above 0 and up to {WORK_HOURS_MAX:g}, such as 3 or 0.5")
    return float(value)


def within_a_month(value: int) -> int:
    if value > DELAY_SECONDS_MAX:
        raise refuse("must be at most 30d; submit the job later")
    return value


def after_within(value: int | None, info: ValidationInfo) -> int | None:
    """A job that may begin at the deadline could not end by it."""
    within = info.data.get("within")
    if value is not None and within is not None and value <= within:
        raise refuse("must be later than `within`: the job must have ended by then")
    return value


def preset_name(value: object) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise refuse(f"{str(value)[:40]!r} is no preset; they are {', '.join(PRESETS)}")
    return value


def unit_count(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= UNITS_MAX:
        raise refuse(f"must be a number above 0 and up to {UNITS_MAX:g}, such as 10")
    return float(value)


class Prefer(Block):
    preset: Annotated[str, BeforeValidator(preset_name, json_schema_input_type=str)] | None = Field(
        default=None, description=f"One of {', '.join(PRESETS)}."
    )
    carbon_price: Annotated[int, _per("kg")] | None = Field(
        default=None, description="What a kilogram of CO2e is worth avoiding.", examples=["0.10/kg"]
    )
    delay_cost: Annotated[int, _per("h")] | None = Field(
        default=None, description="What an hour until the end costs the renter.", examples=["0.50/h"]
    )
    value: Amount | None = Field(
        default=None, description="What the finished job is worth; max_cost unless given.", examples=["6.00"]
    )


class Start(Block):
    within: Annotated[int, duration(0), AfterValidator(within_a_month)] = Field(
        description="The job may begin this long after its submission.", examples=["8h"]
    )
    deadline: Annotated[Annotated[int, duration(1)] | None, AfterValidator(after_within)] = Field(
        default=None,
        description="The job must have ended this long after its submission.",
        examples=["12h"],
    )


class Work(Block):
    device: Annotated[str, BeforeValidator(work_device, json_schema_input_type=str)] = Field(
        description="The device on which the hours are known: a GPU model, or cpu.", examples=["V100"]
    )
    hours: Annotated[float, BeforeValidator(work_hours, json_schema_input_type=float)] = Field(
        description="How long the job takes on as many of that device as it asks for.", examples=[3]
    )


class FunctionalUnit(Block):
    name: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        description="What carbon is counted per.", examples=["epoch"]
    )
    count: Annotated[float, BeforeValidator(unit_count, json_schema_input_type=float)] = Field(
        description="How many of it the finished job did.", examples=[10]
    )


MaxCarbon = Annotated[float, BeforeValidator(grams, json_schema_input_type=str)]
Regions = Annotated[
    tuple[Annotated[str, BeforeValidator(region, json_schema_input_type=str)], ...],
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
MinGrade = Annotated[str, BeforeValidator(grade, json_schema_input_type=str)]
PreferOrPreset = Annotated[Prefer, BeforeValidator(preference_of, json_schema_input_type=Prefer | str)]


def preference(block: Prefer | None) -> domain.Preference:
    """The prices; those that are not given beside a preset are the preset's, else none."""
    if block is None:
        return domain.Preference()
    base = preset(block.preset) if block.preset else domain.Preference()
    given = block.carbon_price is not None or block.delay_cost is not None
    return domain.Preference(
        name=None if given else base.name,
        carbon_price_per_kg=base.carbon_price_per_kg if block.carbon_price is None else block.carbon_price,
        delay_cost_per_hour=base.delay_cost_per_hour if block.delay_cost is None else block.delay_cost,
        value=block.value,
    )


def start(block: Start | None) -> domain.Start | None:
    return (
        None if block is None else domain.Start(within_seconds=block.within, deadline_seconds=block.deadline)
    )


def functional_unit(block: FunctionalUnit | None) -> domain.FunctionalUnit | None:
    return None if block is None else domain.FunctionalUnit(name=block.name, count=block.count)


def work(block: Work | None) -> domain.Work | None:
    return None if block is None else domain.Work(device=block.device, hours=block.hours)
