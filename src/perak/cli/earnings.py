"""What a provider's nodes earned."""

from __future__ import annotations

import click

from perak.cli.app import App, Command

DAYS_DEFAULT, DAYS_MAX = 30, 366


@click.command(cls=Command, example="perak earnings --days 7")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=DAYS_DEFAULT, show_default=True)
@click.pass_obj
def earnings(app: App, days: int) -> None:
    """What a provider's nodes earned.

    In all, by node and by day (UTC).
    """
    from perak.cli import render

    with app.client() as client:
        found = client.earnings(days=days)
    app.emit(found, lambda: render.earnings(found))
