"""The market on files: what would be matched, and at what prices. Needs the extra `market`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from perak.cli.app import App, Command, Group

if TYPE_CHECKING:
    from rich.table import Table

    from perak.sim.clearing import Clearing

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def market() -> None:
    """The market's own code, on files."""


@market.command(
    cls=Command, example="perak market clear --offers offers.csv --jobs jobs.csv --out plan.csv --bound"
)
@click.option("--offers", type=FILE, required=True, help="CSV or Parquet: offer_id, model, region, ...")
@click.option("--jobs", type=FILE, required=True, help="CSV or Parquet: job_id, devices, ...")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The plan's file."
)
@click.option("--method", type=click.Choice(["instant", "auction"]), default="auction", show_default=True)
@click.option(
    "--epsilon",
    type=click.FloatRange(min=0, min_open=True),
    metavar="E",
    help="Least step of a bid for a device.",
)
@click.option("--bound", is_flag=True, help="Also find an upper bound on the welfare of any plan.")
@click.pass_obj
def clear(
    app: App,
    offers: Path,
    jobs: Path,
    out: Path,
    method: Literal["instant", "auction"],
    epsilon: float | None,
    bound: bool,
) -> None:
    """Clear a market from files by the exchange's own code, and check the plan by other code.

    The columns and their meaning are in docs/market.md.
    """
    try:
        from pydantic import RootModel

        from perak.sim.clearing import Clearing, read_market, write_plan
        from perak.sim.clearing import clear as clear_market
        from perak.sim.clearing_check import audit
        from perak.sim.clearing_rows import plan_rows, rows
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perak"):
            raise
        raise click.ClickException(
            f"`perak market clear` needs {error.name}, which is not installed. Run: pip install "
            f"'perak[market]'"
        ) from None
    market = read_market(offers, jobs)
    plan, found = clear_market(market, method=method, epsilon=epsilon, bound=bound)
    checked = audit(rows(offers), rows(jobs), plan_rows(plan, market))
    if checked.violations:
        raise click.ClickException(
            f"The plan breaks {len(checked.violations)} rules, which is our bug; nothing was written. "
            f"The first: {checked.violations[0]}"
        )
    write_plan(out, plan, market)
    app.emit(RootModel[Clearing](found), lambda: _shown(found))


def _shown(found: Clearing) -> Table:
    from perak.cli.render.parts import new_table

    table = new_table(">WELFARE", ">MATCHED", ">SECONDS", ">BOUND", ">GAP")
    table.add_row(
        f"{found.welfare:,.2f}",
        str(found.matched_jobs),
        f"{found.solve_s:.3f}",
        "-" if found.bound is None else f"{found.bound:,.2f}",
        "-" if found.gap is None else f"{100 * found.gap:.2f}%",
    )
    return table
