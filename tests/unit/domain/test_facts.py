"""The bundled facts equal the sources that they name, wherever those are at hand."""

import csv
import json
import statistics
from datetime import date
from pathlib import Path

import pytest

from perak.domain.facts import grid, power
from perak.domain.facts.prices import CPU, DISKLESS, EGRESS, KINDS, PRICES, STORAGE
from perak.domain.hardware.specs import SPECS, find_gpu

DATA = Path(__file__).parents[4] / "shared" / "data"
EU = [
    "AUT", "BEL", "BGR", "HRV", "CYP", "CZE", "DNK", "EST", "FIN", "FRA", "DEU", "GRC", "HUN", "IRL",
    "ITA", "LVA", "LTU", "LUX", "MLT", "NLD", "POL", "PRT", "ROU", "SVK", "SVN", "ESP", "SWE",
]  # fmt: skip


def _source(path: str) -> Path:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"the source data {path} is not beside the project")
    return file


def _rows(path: str, *, skip_lines: int = 0) -> list[dict[str, str]]:
    with _source(path).open(newline="") as file:
        for _ in range(skip_lines):
            next(file)
        return list(csv.DictReader(file))


def test_countries_equal_their_source() -> None:
    rows = _rows("carbon/annual/carbontracker_2.4.7_carbon-intensities.csv")
    source = {row["alpha-2"]: row for row in rows}
    for region, grams, year in grid.COUNTRIES:
        row = source[region]
        assert (grams, year) == (float(row["Carbon intensity of electricity (gCO2eq/kWh)"]), int(row["Year"]))


def test_the_european_union_is_the_mean_of_its_members() -> None:
    mix = json.loads(_source("carbon/annual/codecarbon_3.3.2_global_energy_mix.json").read_text())
    members = [mix[code] for code in EU]
    assert {member["year"] for member in members} == {grid.EU[1]}
    emitted = sum(member["total_TWh"] * member["carbon_intensity"] for member in members)
    assert grid.EU[0] == pytest.approx(emitted / sum(member["total_TWh"] for member in members), abs=0.001)


def test_the_world_lies_where_its_countries_put_it() -> None:
    """A second source for a figure that the shared tables don't have: within one percent."""
    mix = json.loads(_source("carbon/annual/codecarbon_3.3.2_global_energy_mix.json").read_text())
    known = [country for country in mix.values() if country.get("carbon_intensity")]
    emitted = sum(country["total_TWh"] * country["carbon_intensity"] for country in known)
    assert grid.WORLD[0] == pytest.approx(emitted / sum(country["total_TWh"] for country in known), rel=0.01)


def test_every_region_appears_once() -> None:
    regions = [region for region, _, _ in grid.COUNTRIES]
    assert len(set(regions)) == len(regions) >= 60
    assert all(0 < grams < 1400 and year >= 2022 for _, grams, year in grid.COUNTRIES)


@pytest.mark.parametrize(
    ("theirs", "ours", "gpus_on_card"),
    [
        ("NVIDIA A100 40GB PCIe", "A100 PCIe 40GB", 1),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB", 1),
        ("NVIDIA GTX 1080 Ti", "GTX 1080 Ti", 1),
        ("NVIDIA RTX 2080 Ti", "RTX 2080 Ti", 1),
        ("NVIDIA Tesla K80", "Tesla K80", 2),
        ("NVIDIA Tesla P100 PCIe", "P100 PCIe 16GB", 1),
        ("NVIDIA Tesla P4", "Tesla P4", 1),
        ("NVIDIA Tesla T4", "Tesla T4", 1),
        ("NVIDIA Tesla V100", "V100 SXM2 16GB", 1),
        ("NVIDIA Tesla V100S", "V100S PCIe 32GB", 1),
        ("NVIDIA Titan V", "Titan V", 1),
    ],
)
def test_gpu_power_equals_a_second_source(theirs: str, ours: str, gpus_on_card: int) -> None:
    rows = _rows("carbon/gpu/greenalgorithms_TDP_gpu.csv", skip_lines=1)
    source = {row["model"]: row["TDP"] for row in rows}
    spec = find_gpu(ours)
    assert spec is not None
    assert spec.tdp_watts * gpus_on_card == int(source[theirs])


def test_gpu_rows_are_whole() -> None:
    assert len({spec.variant for spec in SPECS}) == len(SPECS) >= 100
    for spec in SPECS:
        assert spec.source
        assert 2012 <= spec.year <= 2026
        assert 30 <= spec.tdp_watts <= 1400


def test_power_constants_equal_their_source() -> None:
    values = {row["variable"]: row["value"] for row in _reference_values()}
    assert float(values["memoryPower"]) == power.MEMORY_WATTS_PER_GB
    rows = _rows("carbon/annual/greenalgorithms_defaults_PUE.csv", skip_lines=1)
    assert {row["provider"]: row["PUE"] for row in rows}["Unknown"] == str(power.PUE_UNKNOWN)


def _reference_values() -> list[dict[str, str]]:
    return _rows("carbon/annual/greenalgorithms_referenceValues.csv", skip_lines=1)


def test_gpu_shares_are_what_zeus_measured() -> None:
    shares: list[float] = []
    for gpu in ("a40", "p100", "rtx6000", "v100"):
        rows = _rows(f"carbon/gpu/zeus_nsdi23_summary_power_{gpu}.csv")
        limit = max(float(row["power_limit"]) for row in rows)
        at_limit = (row for row in rows if float(row["power_limit"]) == limit)
        shares += [float(row["average_power"]) / limit for row in at_limit]
    assert len(shares) == 218
    assert min(shares) == pytest.approx(power.GPU_IDLE_SHARE, abs=0.005)
    assert statistics.median(shares) == pytest.approx(power.GPU_TRAINING_SHARE, abs=0.006)


def test_every_price_has_a_known_gpu_a_seller_a_source_and_a_day() -> None:
    for kind, seller, variant, price, day, source in PRICES:
        known = find_gpu(variant)
        assert kind in KINDS
        assert known is not None, variant
        assert known.variant == variant
        assert date.fromisoformat(day) <= date(2026, 11, 30)
        assert price > 0
        assert seller
        assert source


@pytest.mark.parametrize("fact", [EGRESS, STORAGE, CPU])
def test_what_else_is_on_bills_has_a_source_and_a_day(fact: tuple[int | str, ...]) -> None:
    *amounts, day, source = fact
    assert all(isinstance(amount, int) and amount > 0 for amount in amounts)
    assert date.fromisoformat(str(day)) <= date(2026, 11, 30)
    assert "." in str(source)


def test_machines_without_a_disk_are_in_the_price_book() -> None:
    assert {seller for _, seller, *_ in PRICES} >= DISKLESS


def test_prices_are_those_of_the_points_that_were_collected() -> None:
    points = _rows("market/prices/price_points.csv")
    collected = {round(float(row["usd_per_gpu_h"]) * 1_000_000) for row in points}
    dated = [row for row in PRICES if "datareceipts" in row[5]]
    assert dated
    assert all(price in collected for _, _, _, price, _, _ in dated)
