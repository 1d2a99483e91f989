"""`perak market clear`: files in, a plan that was checked out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from perak.cli.main import cli

pytestmark = pytest.mark.timeout(900)
"""The first of them compiles what they run."""

OFFERS = (
    "offer_id,model,region,grade,devices,price_per_device_hour,performance,memory_gb,power_w,carbon_g_per_kwh"
    """
cheap,V100,DE,B,4,0.10,1.0,16,300,380
dear,V100,DE,B,4,0.20,1.0,16,300,380
clean,A100,FR,A,2,0.90,2.5,40,400,56
"""
)
JOBS = (
    "job_id,devices,devices_per_node,memory_gb,work,value,deadline_h,delay_cost_per_h,carbon_price_per_kg,regions"
    """
gang,4,2,8,8,4.0,,0,0,
large,1,1,32,5,5.0,10,0.1,0.2,FR;SE
late,1,1,8,100,99,2,0,0,
abroad,1,1,8,1,9,,0,0,US
"""
)


def clear(folder: Path, *more: str, offers: str = OFFERS, jobs: str = JOBS) -> Result:
    (folder / "offers.csv").write_text(offers)
    (folder / "jobs.csv").write_text(jobs)
    names = {"--offers": "offers.csv", "--jobs": "jobs.csv", "--out": "plan.csv"}
    arguments = [word for option, name in names.items() for word in (option, str(folder / name))]
    return CliRunner().invoke(cli, ["market", "clear", *arguments, *more])


def plan(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["instant", "auction"])
def test_a_market_of_csv_is_cleared(tmp_path: Path, method: str) -> None:
    result = clear(tmp_path, "--method", method, "--bound", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    # The gang: 4 - 8 h x 0.10. The large one, 2 h on the A100: 5 - 1.80 - 0.20 - 0.2 x 0.0448 kg.
    assert found["welfare"] == pytest.approx(3.2 + 3.0 - 0.2 * 0.0448)
    assert found["matched_jobs"] == 2
    assert found["bound"] >= found["welfare"] * (1 - 1e-9)
    assert found["gap"] == pytest.approx(1 - found["welfare"] / found["bound"])
    rows = {row["job_id"]: (row["offer_id"], int(row["devices"])) for row in plan(tmp_path / "plan.csv")}
    assert rows == {"gang": ("cheap", 4), "large": ("clean", 1)}


def test_parquet_is_read_and_written(tmp_path: Path) -> None:
    for name, text in (("offers", OFFERS), ("jobs", JOBS)):
        pq.write_table(pacsv.read_csv(pa.BufferReader(text.encode())), tmp_path / f"{name}.parquet")
    words = ["--offers", "offers", "--jobs", "jobs", "--out", "plan"]
    paths = [word if word.startswith("--") else str(tmp_path / f"{word}.parquet") for word in words]
    result = CliRunner().invoke(cli, ["market", "clear", *paths, "--epsilon", "0.01"])
    assert result.exit_code == 0, result.output
    assert pq.read_table(tmp_path / "plan.parquet").column_names == [
        "job_id",
        "offer_id",
        "devices",
        "pays_per_device_hour",
    ]


@pytest.mark.parametrize(
    ("offers", "jobs", "says"),
    [
        (OFFERS.replace("grade,", "rank,"), JOBS, "no column grade"),
        (OFFERS.replace("0.20,1.0", "0.20,2.0"), JOBS, "performance of offer dear"),
        (OFFERS.replace("0.90,2.5", "0.90,0"), JOBS, "performance of offer clean is not above zero"),
        (OFFERS, JOBS.replace("late", "gang"), "same job_id twice"),
        (OFFERS, JOBS.replace("gang,4", "gang,four"), "devices is not a number"),
        (OFFERS, JOBS.replace("gang,4", "gang,4.5"), "devices is no whole number"),
        (OFFERS.replace("0.20,1.0", "-0.20,1.0"), JOBS, "price_per_device_hour is below zero"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, offers: str, jobs: str, says: str) -> None:
    result = clear(tmp_path, offers=offers, jobs=jobs)
    assert result.exit_code != 0
    assert says in " ".join(result.output.split())
    assert not (tmp_path / "plan.csv").exists()
