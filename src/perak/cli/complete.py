"""What the shell offers on TAB; whatever goes wrong there, it stays silent."""

from __future__ import annotations

import contextlib

import click

from perak.cli.app import App

OFFERED_MAX = 50
"""More than a terminal shows at once."""


def job_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the newest jobs."""
    found: dict[str, None] = {}
    with contextlib.suppress(Exception):
        options = ctx.find_root().params
        app = App(url=options.get("url"), profile=options.get("profile"))
        with app.client() as client:
            for job in client.jobs(limit=OFFERED_MAX):
                found[job.name] = None
    return [name for name in found if name.startswith(incomplete)]
