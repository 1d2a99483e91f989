"""What the commands of energy and carbon print, and that advice needs no exchange."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from perak.cli.main import cli
from perak.cli.render import of_footprint, of_grid, of_quotes
from perak.domain.carbon.counting import hardware, moving, operational
from perak.domain.carbon.intensity import yearly_intensity
from perak.domain.carbon.placement import Grid, ZoneOutlook
from perak.domain.carbon.signal import AverageHours
from perak.domain.footprint import Energy, sci
from perak.domain.job import FunctionalUnit
from perak.domain.receipt import _plain
from perak.wire.api.grid import CarbonReport, CarbonRow, GridHour, GridZone, MarginalHour
from perak.wire.api.market import WaitingView
from perak.wire.jobfile import JobFileError, parse_job, spec_to_tree

HOUR = 490_000
FEED = AverageHours(zone="DE", first_hour=HOUR, grams_per_kwh=(200, 300), source="a feed")
GRID = Grid({"DE": ZoneOutlook(yearly=yearly_intensity("DE"), measured=FEED)})


def printed(*args: str) -> str:
    result = CliRunner().invoke(cli, list(args))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_advice_of_a_card_and_a_measured_workload() -> None:
    old = printed("advise", "--device", "V100", "--workload", "ResNet-50", "--region", "DE")
    assert "The used card is the greener choice here." in old
    new = printed("advise", "--device", "P100", "--workload", "DeepSpeech2", "--region", "DE")
    assert "A new card would be the greener choice here" in new
    assert "here it is 344" in new
    assert "/ ((kWh used - kWh new) x PUE)" in new


def test_a_month_shows_moved_data_in_a_column_of_its_own() -> None:
    fields = {
        "month": "2026-11", "runs": 1, "energy_kwh": 2.0, "location_based_kg": 0.5, "embodied_low_kg": 0.1,
        "embodied_high_kg": 0.3, "avoided_low_kg": 0.2, "avoided_high_kg": 0.4, "moved_low_kg": 0.01,
        "moved_high_kg": 0.07,
    }  # fmt: skip
    row = CarbonRow.model_validate({
        **fields, "scope": "3", "category": "1", "region": "DE", "region_evidence": "declared",
        "method": "hourly average", "energy_uncertainty_percent": 5.0, "grams_per_kwh": 250.0,
        "runs_without_embodied": 0, "sources": "a feed",
    })  # fmt: skip
    out = io.StringIO()
    month = CarbonReport.model_validate({**fields, "project": "p", "rows": [row]})
    Console(file=out, width=200).print(of_grid.report(month))
    said = " ".join(out.getvalue().split())
    assert "MOVING DATA kg" in said
    assert "0.0100 to 0.0700 kg may have come from moving data" in said
    assert "0.500 kg CO2e operational" in said


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"saved_carbon_grams": 120.0, "saved_cost": "0.02"}, "120 g CO2e less and 0.02 USD less than now"),
        ({"saved_carbon_grams": -120.0, "saved_cost": "0.02"}, "120 g CO2e more and 0.02 USD less than now"),
        ({"saved_carbon_grams": None, "saved_cost": None}, "at attic, by what is foretold."),
    ],
)
def test_a_quote_says_what_waiting_is_expected_to_save(saved: dict[str, Any], said: str) -> None:
    waiting = WaitingView(
        offer="o", node_name="attic", start_at=datetime(2026, 11, 3, 3, tzinfo=UTC), text="-", **saved
    )
    assert said in of_quotes._waiting(waiting, "USD")
    now = waiting.model_copy(update={"start_at": None, "text": "no later start is expected to be better"})
    assert of_quotes._waiting(now, "USD") == "It starts now: no later start is expected to be better."


def test_advice_of_a_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: t\nrun: 'true'\nresources: {gpu: T4}\n")
    told = json.loads(printed("--json", "advise", str(file), "--intensity", "50"))
    assert (told["pair"]["used"], told["pair"]["new"], told["here"]) == ("T4", "L4", 50)


def test_the_range_of_a_break_even_is_said_in_words() -> None:
    finite = printed("advise", "--device", "P100", "--workload", "DeepSpeech2", "--region", "DE")
    assert "P100: greener than a new A40 below 5 g/kWh, not above 15; here it is 344" in finite
    never = printed("advise", "--device", "V100", "--workload", "ResNet-50", "--region", "DE")
    assert "greener than a new A40 on any grid" in never
    sheets = printed("advise", "--device", "T4", "--new", "L4", "--region", "DE")
    assert "perhaps on any grid; here it is 344" in sheets or "not above" in sheets


def test_a_zone_without_a_name_is_asked_for_before_anybody_is_called() -> None:
    result = CliRunner().invoke(cli, ["grid", ""])
    assert result.exit_code == 2
    assert "Name a zone, like DE or US-CA" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((), "Which card?"),
        (("--device", "H200"), "Nothing to compare with"),
        (("--device", "V100", "--workload", "tetris"), "was not measured"),
        (("--device", "V100", "--new", "Voodoo"), "no GPU that is known"),
        (("missing.json",), "can't be read"),
    ],
)
def test_what_can_not_be_advised_says_why(args: tuple[str, ...], complaint: str) -> None:
    result = CliRunner().invoke(cli, ["advise", *args])
    assert result.exit_code != 0
    assert complaint in " ".join(result.output.split())


def test_each_number_of_a_receipt_is_a_sentence() -> None:
    energy = Energy(
        joules=3.6e6, method="NVML energy counter", uncertainty_percent=5.0, samples=720, modelled=("cpu",)
    )
    carbon = operational(3.6e6, start=HOUR * 3600.0 + 1800, seconds=3600, region="DE", grid=GRID, pue=1.5)
    embodied, avoided = hardware(gpus=[("Tesla T4", 16 * 2**30)], host_share=0.5, seconds=3600)
    score = sci(energy, carbon, embodied, unit="epoch", count=10)
    moved = moving(
        received_bytes=10**9, sent_bytes=0, run_bytes=0, grams_per_kwh=250.0, uncounted=("the image",)
    )
    parts = {"energy": energy, "carbon": carbon, "embodied": embodied, "avoided": avoided, "sci": score}
    parts["moved"] = moved
    told = {name: _plain(value) for name, value in parts.items()}
    lines = dict(of_footprint.rows(told))
    assert lines["energy"] == "1,000.0 Wh was drawn by the run, ± 5 %, from 720 readings"
    assert lines["carbon"] is not None
    assert lines["carbon"].startswith("375 g CO2e came from making that electricity")
    assert lines["modelled"] == "cpu: nothing could be read of it all the time"
    assert lines["hours"] == "it ran in 2 hours of 200 to 300 g/kWh, weighed by energy"
    assert "it lowers no other number" in (lines["avoided"] or "")
    assert "per epoch (10 of them)" in (lines["SCI"] or "")
    assert "nothing supports it" in (lines["region"] or "")
    assert (lines["data moved"] or "").startswith("475 mg CO2e to 15 g CO2e may have come from moving 1.0 GB")
    assert lines["not counted"] == "the image: the exchange doesn't know their size"
    none = moving(received_bytes=0, sent_bytes=0, run_bytes=0, grams_per_kwh=250.0)
    (_, _, (_, said)) = of_footprint.rows({"moved": _plain(none)})
    assert said == "nothing that the exchange knows the size of"


def test_an_older_receipt_shows_what_it_says() -> None:
    lines = dict(of_footprint.rows({"energy": None, "carbon": None}))
    assert lines == {"energy": "not known", "carbon": "not known"}


def test_a_functional_unit_comes_from_the_job_file_and_back() -> None:
    tree = {"name": "t", "run": "true", "functional_unit": {"name": "epoch", "count": 10}}
    spec = parse_job(tree, workdir_digest=None)
    assert spec.functional_unit == FunctionalUnit(name="epoch", count=10.0)
    assert parse_job(spec_to_tree(spec), workdir_digest=None) == spec
    with pytest.raises(JobFileError, match="above 0"):
        parse_job({**tree, "functional_unit": {"name": "epoch", "count": 0}}, workdir_digest=None)


def shown(renderable: object) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_zone_is_shown_with_its_source_kinds_and_a_chart() -> None:
    at = datetime(2026, 11, 23, 11, tzinfo=UTC)
    kinds = [(200.0, "measured"), (100.0, "forecast")]
    hours = [
        GridHour(at=at + timedelta(hours=i), grams_per_kwh=grams, kind=kind)
        for i, (grams, kind) in enumerate(kinds)
    ]
    zone = GridZone(
        region="GB",
        feed="gb",
        feed_zone="GB",
        tried_live=False,
        now=hours[0],
        source="GB Carbon Intensity API",
        forecast_source="GB Carbon Intensity API",
        factor="direct",
        note="gb: it limits the rate (429)",
        read_at=at,
        yearly_grams_per_kwh=210.9,
        yearly_source="GB 2024: Ember",
        hours=hours,
        marginal=[MarginalHour(at=at, grams_per_kwh=500.0)],
        marginal_source="WattTime MOER",
    )
    text = shown(of_grid.zone(zone))
    assert "gb GB (not tried live)" in text
    assert "it limits the rate" in text
    assert "shown, never counted" in text
    longer, shorter = (line.count("█") for line in text.splitlines() if "█" in line)
    assert longer == 2 * shorter
    assert "measured < now" in text
    assert "not tried live" in shown(of_grid.zones([zone]))


def test_a_place_that_nobody_knows_is_said_to_count_as_the_world() -> None:
    said = CliRunner().invoke(cli, ["advise", "--device", "V100", "--region", "Mars"])
    assert "No figure is known for Mars: that of WORLD counts." in said.output
    known = CliRunner().invoke(cli, ["advise", "--device", "V100", "--region", "de"])
    assert "No figure" not in known.output
