"""The public price history."""

from __future__ import annotations

from pathlib import Path

import click

from perak.cli.app import App, Command

HOURS_DEFAULT = 24 * 7


@click.command(cls=Command, example="perak prices --hours 48 --plot prices.png")
@click.option("--hours", type=click.IntRange(1, 24 * 92), default=HOURS_DEFAULT, show_default=True)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the medians (png, svg or pdf)."
)
@click.option("--parquet", type=click.Path(path_type=Path, dir_okay=False), help="Write the cells to a file.")
@click.pass_obj
def prices(app: App, hours: int, plot: Path | None, parquet: Path | None) -> None:
    """Show what was offered, bid, cancelled and paid, by class and hour.

    Anyone may ask, without a key. Cells with fewer than five trades are marked thin.
    """
    from perak.cli import render

    with app.client() as client:
        found = client.prices(hours=hours)
    app.emit(found, lambda: render.prices(found))
    if plot is not None:
        from perak.cli.plots import plot_prices

        plot_prices(plot, found)
        app.say(f"The picture is in {plot}")
    if parquet is not None:
        write_parquet(parquet, found.model_dump(mode="python")["cells"])
        app.say(f"{len(found.cells)} cells are in {parquet}")


def write_parquet(path: Path, cells: list[dict[str, object]]) -> None:
    """One row a cell; prices as numbers. Raises ClickException where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise click.ClickException(
            "Writing Parquet needs pyarrow, which is not installed here: pip install 'perak[market]'."
        ) from None
    money = ("p10", "median", "p90")
    rows = [
        {
            name: float(str(each)) if name in money and each is not None else each
            for name, each in cell.items()
        }
        for cell in cells
    ]
    schema = pyarrow.schema(
        [
            ("hour", pyarrow.timestamp("us", tz="UTC")),
            ("gpu", pyarrow.bool_()),
            *((name, pyarrow.string()) for name in ("model", "region", "grade")),
            *((name, pyarrow.float64()) for name in money),
            ("trades", pyarrow.int64()),
            ("thin", pyarrow.bool_()),
            *((name, pyarrow.float64()) for name in ("devices", "device_hours", "utilisation")),
            *((name, pyarrow.int64()) for name in ("offers", "bids", "cancellations")),
        ]
    )
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
