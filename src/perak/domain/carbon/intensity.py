"""How much carbon a kilowatt-hour carries in a region, as a yearly average."""

from __future__ import annotations

from dataclasses import dataclass

from perak.domain.facts import grid
from perak.domain.regions import normal_region

WORLD = "WORLD"

_COUNTRIES = {region: (grams, year) for region, grams, year in grid.COUNTRIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """Grams CO2e per kWh, as the average of one year; `region` is whose average it is."""

    region: str
    grams_per_kwh: float
    source: str
    year: int


def yearly_intensity(region: str) -> Intensity:
    """The yearly average of `region`: ISO 3166 like ``DE`` or ``US-CA``, or ``EU``.

    What is not in the table counts as the larger region that contains it, in the end the world; the answer's
    `region` says which. So ``DE-BY`` is Germany, and ``moonbase`` is WORLD.
    """
    code = normal_region(region).partition("-")[0]
    if code in _COUNTRIES:
        grams, year = _COUNTRIES[code]
        return Intensity(region=code, grams_per_kwh=grams, source=grid.SOURCE, year=year)
    if code == "EU":
        return Intensity(region=code, grams_per_kwh=grid.EU[0], source=grid.EU_SOURCE, year=grid.EU[1])
    return Intensity(region=WORLD, grams_per_kwh=grid.WORLD[0], source=grid.WORLD_SOURCE, year=grid.WORLD[1])
