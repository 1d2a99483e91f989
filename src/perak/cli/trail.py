"""The trail of what was done."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perak.wire import api


@click.command(cls=Command, example="perak trail --last 20")
@click.option("--last", "count", type=click.IntRange(min=1), default=50, show_default=True, help="How many.")
@click.pass_obj
def trail(app: App, count: int) -> None:
    """Who did what with keys, money, secrets and nodes.

    Newest first. A project sees what its own keys did, an operator what everybody's did. Nothing in it can be
    changed.
    """
    with app.client() as client:
        found = list(islice(client.trail(), count))
    app.emit(found, lambda: _table(found))


def _table(found: list[api.TrailEntry]) -> RenderableType:
    from perak.cli.render.parts import at_time, new_table, plain, short_id

    table = new_table("AT", "KEY", "FROM", "ACTION", "ON", "OUTCOME")
    for each in found:
        who = f"{each.key_name} ({short_id(each.key)})"
        table.add_row(
            at_time(each.at), plain(who), plain(each.address), each.action, plain(each.subject), each.outcome
        )
    return table
