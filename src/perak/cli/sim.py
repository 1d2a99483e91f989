"""What would have been: policies tried on traces. Needs the extra `sim`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from perak.sim.forecast_error import ZoneError
    from perak.sim.shift import Outcome

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
HOURS = click.FloatRange(min=0)


@click.group(cls=Group)
def sim() -> None:
    """What would have been: policies tried on traces."""


@sim.command(
    cls=Command,
    example="perak sim shift --jobs jobs.csv --intensity 2022.csv.gz --zone AU-SA --start 7000 --hours 720 "
    "--policy carbon-time",
)
@click.option("--jobs", type=FILE, required=True, help="CSV: arrival_s, length_s, cpus.")
@click.option("--intensity", type=FILE, required=True, help="CSV: a time, then g/kWh by zone; hourly.")
@click.option("--zone", required=True, metavar="Z", help="The column of the intensity.")
@click.option(
    "--start", type=click.IntRange(min=0), default=0, help="Its hour in which jobs begin to arrive."
)
@click.option("--hours", type=click.IntRange(min=1), help="Hours of it to use; to its end, unless given.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    required=True,
    metavar="P",
    help="no-wait, lowest-slot, lowest-window, carbon-time, carbon+wait or perak; with --interruptible also "
    "ecovisor and wait-awhile. Several may be compared.",
)
@click.option("--max-wait-short", type=HOURS, default=6.0, show_default=True, metavar="H")
@click.option("--max-wait-long", type=HOURS, default=24.0, show_default=True, metavar="H")
@click.option("--short-below", type=HOURS, default=2.0, show_default=True, metavar="H")
@click.option("--interruptible", is_flag=True, help="Jobs can be paused and go on.")
@click.option("--learn-lengths", is_flag=True, help="Queues know the lengths of ended jobs alone.")
@click.option(
    "--wait-price", type=HOURS, default=0.0, metavar="G", help="Grams an hour of waiting counts as."
)
@click.option("--mean-wait", type=HOURS, metavar="H", help="Find the price for this mean wait.")
@click.option("--watts-per-cpu", type=click.FloatRange(min=0, min_open=True), default=12.0, show_default=True)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a .png, .svg or .pdf.")
@click.pass_obj
def shift(
    app: App,
    jobs: Path,
    intensity: Path,
    zone: str,
    start: int,
    hours: int | None,
    policies: tuple[str, ...],
    max_wait_short: float,
    max_wait_long: float,
    short_below: float,
    interruptible: bool,
    learn_lengths: bool,
    wait_price: float,
    mean_wait: float | None,
    watts_per_cpu: float,
    plot: Path | None,
) -> None:
    """Shift a trace of jobs in time.

    Carbon is that of the CPUs at the given watts; `normalised` is beside starting every job at once.
    """
    if wait_price and mean_wait is not None:
        raise click.UsageError("--wait-price and --mean-wait both set the price. Give one of them.")
    with _needs_sim():
        from pydantic import RootModel

        from perak.domain.carbon.shifting import PRICED
        from perak.sim import shift as sims
        from perak.sim.traces import read_intensity, read_jobs, window

        trace = read_jobs(jobs)
        grid = window(read_intensity(intensity, zone).zone(zone), start=start, hours=hours)
        schedules = []
        for policy in policies:
            setting = sims.Setting(
                policy=policy,
                interruptible=interruptible,
                max_wait_short=max_wait_short,
                max_wait_long=max_wait_long,
                short_below=short_below,
                learn_lengths=learn_lengths,
                wait_price=sims.price(wait_price, watts_per_cpu=watts_per_cpu),
            )
            if mean_wait is not None and policy in PRICED:
                found = sims.price_for_wait(trace, grid, setting, mean_wait=mean_wait)
                setting = replace(setting, wait_price=found)
            schedules.append(sims.shift(trace, grid, setting))
        outcomes = [sims.outcome(schedule, watts_per_cpu=watts_per_cpu) for schedule in schedules]
        if plot is not None:
            from perak.sim.plot import plot_schedules

            plot_schedules(plot, schedules, title=f"{zone}, {grid.size} h from hour {start}")
    shown = RootModel[list[sims.Outcome]](outcomes) if len(outcomes) > 1 else RootModel(outcomes[0])
    app.emit(shown, lambda: _outcomes(outcomes))
    if plot is not None:
        app.say(f"Plot: {plot}")


@sim.command(cls=Command, example="perak sim forecast --intensity 2022.csv.gz --zone AU-SA")
@click.option("--intensity", type=FILE, required=True, help="CSV: a time, then g/kWh by zone; hourly.")
@click.option("--zone", "zones", multiple=True, metavar="Z", help="Show these; all, unless given.")
@click.pass_obj
def forecast(app: App, intensity: Path, zones: tuple[str, ...]) -> None:
    """Show how far forecasts of the next day are off, by zone.

    Mean absolute errors in g/kWh of our forecast, of the day before, of the last hour going on, and of the
    mean of seven days with decay. At each hour only those before it are known; all zones of the file teach.
    """
    with _needs_sim():
        from pydantic import RootModel

        from perak.sim.forecast_error import ZoneError, errors_by_zone
        from perak.sim.traces import known_zones, read_intensity

        trace = read_intensity(intensity)
        errors = list(errors_by_zone(trace, known_zones(intensity, trace.zones, zones)))
    app.emit(RootModel[list[ZoneError]](errors), lambda: _errors(errors))


@contextmanager
def _needs_sim() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perak"):
            raise
        raise click.ClickException(
            f"`perak sim` needs {error.name}, which is not installed. Run: pip install 'perak[sim]'"
        ) from None


def _outcomes(outcomes: list[Outcome]) -> Table:
    from perak.cli.render.parts import new_table

    table = new_table("POLICY", ">CARBON g", ">NORMALISED", ">MEAN WAIT h", ">LONGEST h", ">PRICE g/h")
    for each in outcomes:
        table.add_row(
            each.policy,
            f"{each.carbon_g:,.0f}",
            f"{each.normalised_carbon:.3f}",
            f"{each.mean_wait_h:.2f}",
            f"{each.max_wait_h:.2f}",
            f"{each.wait_price_g_per_h:.3g}",
        )
    return table


def _errors(errors: list[ZoneError]) -> Table:
    from perak.cli.render.parts import new_table

    table = new_table("ZONE", ">MEAN g/kWh", ">OURS", ">DAY BEFORE", ">LAST HOUR", ">WEEK'S MEAN")
    for each in errors:
        figures = (
            each.mean_intensity,
            each.ours,
            each.seasonal_naive,
            each.persistence,
            each.decaying_profile,
        )
        table.add_row(each.zone, *(f"{figure:.1f}" for figure in figures))
    return table
