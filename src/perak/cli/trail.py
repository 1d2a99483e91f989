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
    app.emit(found, lambda: table_of(found))


def table_of(found: list[api.TrailEntry]) -> RenderableType:
    """A line for each deed."""
    from perak.cli.render.parts import Fitted, at_time, plain, short_id, short_subject

    rows = [
        (
            at_time(each.at),
            plain(each.key_name),
            short_id(each.key),
            plain(each.address),
            plain(each.action),
            plain(short_subject(each.subject)),
            plain(each.outcome),
        )
        for each in found
    ]
    return Fitted(("AT", "WHO", "KEY", "FROM", "ACTION", "ON", "OUTCOME"), rows, spare=("FROM", "KEY"))
