"""Carbon: the grid now and ahead, a month for a report, and whether an old card is the cleaner choice."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command, Group, print_rich

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perak.domain.carbon.breakeven import BreakEven
    from perak.wire.api.grid import CarbonReport

RECEIPT_BYTES_MAX = 512 * 1024


@click.command(cls=Command, example="perak grid DE")
@click.argument("zone", metavar="[ZONE]", required=False)
@click.pass_obj
def grid(app: App, zone: str | None) -> None:
    """Show how much carbon electricity carries, now and in the hours ahead.

    Without ZONE every zone that has a feed; with one its hours as a chart, where they are from, and what is
    measured, forecast, or only a year's average.
    """
    from perak.cli.render import of_grid

    if zone is not None and not zone.strip():
        raise click.UsageError(
            "Name a zone, like DE or US-CA; without one those that have a feed are listed."
        )
    with app.client() as client:
        if zone is None:
            zones = client.grid()
            app.emit(zones, lambda: of_grid.zones(zones.zones))
            if not zones.zones:
                app.say(
                    "No zone has a feed here: yearly averages count. `perak exchange --grid FILE` sets some."
                )
            return
        found = client.grid_zone(zone)
    app.emit(found, lambda: of_grid.zone(found))


@click.group(cls=Group)
def report() -> None:
    """Sums of a project's receipts, for a company's own report."""


@report.command("carbon", example="perak report carbon --month 2026-11 --csv")
@click.option("--month", metavar="YYYY-MM", help="Of UTC; this month, unless given.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.pass_obj
def report_carbon(app: App, month: str | None, as_csv: bool) -> None:
    """Sum a month's carbon by region, location-based, with GHG Protocol's columns.

    Embodied carbon is a range beside it. What was avoided is outside of every total.
    """
    from perak.cli.render import of_grid

    with app.client() as client:
        found = client.carbon_report(month=month)
    if as_csv:
        _print_csv(found)
        return
    app.emit(found, lambda: of_grid.report(found))


def _print_csv(found: CarbonReport) -> None:
    from perak.wire.api.grid import CarbonRow

    columns = list(CarbonRow.model_fields)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["project", *columns])
    for row in found.rows:
        told = row.model_dump()
        writer.writerow([found.project, *("" if told[name] is None else told[name] for name in columns)])


@click.command(cls=Command, example="perak advise --device V100 --workload ResNet-50 --region DE")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--device", metavar="GPU", help="The used card; that of the job or receipt, unless given.")
@click.option("--new", metavar="GPU", help="The new card; the smallest that would do, unless given.")
@click.option("--workload", metavar="NAME", help="One that was measured on both: ResNet-50, BERT, ...")
@click.option("--region", metavar="R", help="Whose yearly average counts; a receipt has its own.")
@click.option("--intensity", type=click.FloatRange(0, 3000), metavar="G", help="g CO2e/kWh, instead.")
@click.pass_obj
def advise(
    app: App,
    file: Path | None,
    device: str | None,
    new: str | None,
    workload: str | None,
    region: str | None,
    intensity: float | None,
) -> None:
    """Say whether a used card is greener than the new one that would do the same work.

    FILE is a job file or a receipt. Everything is computed here, from published facts: no exchange is asked.
    """
    from perak.domain.carbon.breakeven import advice
    from perak.domain.carbon.intensity import yearly_intensity
    from perak.domain.errors import InvalidInput
    from perak.domain.regions import normal_region

    told = _Facts() if file is None else _facts_of(file)
    used = device or told.device
    if used is None:
        raise click.UsageError("Which card? Give a job file with `gpu`, a receipt of a GPU job, or --device.")
    here = intensity if intensity is not None else told.intensity if region is None else None
    if here is None:
        year = yearly_intensity(region or "WORLD")
        here = year.grams_per_kwh
        if region is not None and year.region != normal_region(region):
            app.say(f"No figure is known for {region}: that of {year.region} counts.")
    watts = told.watts if device is None else None
    try:
        found = advice(used, here=here, new=new, workload=workload, used_watts=watts)
    except InvalidInput as error:
        raise click.ClickException(error.detail) from None
    if found is None:
        raise click.ClickException(
            f"Nothing to compare with: no newer card is known that does what a {used} does. Name one: --new"
        )
    if app.as_json:
        click.echo(json.dumps({**asdict(found), "line": found.line}, indent=2))
    else:
        print_rich(_advice(found))


class _Facts:
    """What a file tells of the card, the grid and the power."""

    def __init__(
        self, device: str | None = None, intensity: float | None = None, watts: float | None = None
    ) -> None:
        self.device, self.intensity, self.watts = device, intensity, watts


def _facts_of(file: Path) -> _Facts:
    """Of a receipt (JSON) or a job file (YAML)."""
    try:
        with file.open("rb") as stream:
            text = stream.read(RECEIPT_BYTES_MAX + 1)
    except OSError as error:
        raise click.ClickException(f"{file} can't be read: {error.strerror}") from None
    if text.lstrip().startswith(b"{"):
        from perak.wire.receipts import verify_receipt

        receipt = verify_receipt(text).receipt
        device, carbon, energy = receipt.device, receipt.carbon, receipt.energy
        seconds = receipt.embodied.seconds if receipt.embodied else float(receipt.billed_seconds)
        counted = energy is not None and seconds > 0 and len(device.uuids) == 1
        return _Facts(
            device.model if device.uuids else None,
            carbon.grams_per_kwh if carbon else None,
            energy.joules / seconds if counted and energy is not None else None,
        )
    from perak.wire.jobfile import load_job_file

    spec = load_job_file(file).spec
    models = spec.resources.gpu_models
    return _Facts(models[0] if models else None)


def _advice(found: BreakEven) -> RenderableType:
    from rich.console import Group as Lines
    from rich.text import Text

    from perak.cli.render.parts import fact_table
    from perak.domain.facts.embodied import LIFE_YEARS_LONG, LIFE_YEARS_SHORT, SOURCES

    pair = found.pair
    ratios = " to ".join(dict.fromkeys(f"{ratio:.2f}" for ratio in pair.ratios))
    low, high = found.new_kg
    verdict = {
        "used": "The used card is the greener choice here.",
        "new": "A new card would be the greener choice here, its making included.",
        "uncertain": "It can't be said: the verdict turns within what is known.",
    }[found.verdict]
    facts = fact_table(
        ("used card", f"{pair.used}, {pair.used_watts:.0f} W"),
        ("new card", f"{pair.new}, {pair.new_watts:.0f} W, {ratios} of the used one's time"),
        ("known from", pair.basis),
        (
            "making it",
            f"{low:.0f} to {high:.0f} kg CO2e over {LIFE_YEARS_LONG:g} and {LIFE_YEARS_SHORT:g} years",
        ),
        *(("", SOURCES[source]) for source in found.sources),
        ("site", f"PUE {found.pue:g}"),
        ("N", "making the new card's share of the work / ((kWh used - kWh new) x PUE)"),
    )
    return Lines(Text(verdict, style="bold"), Text(f"{pair.used}: {found.line}"), Text(), facts)
