"""`perak node doctor`: what this machine can offer, and what keeps it from offering more."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import click

from perak.cli.app import App, Command


@click.command("doctor", cls=Command, example="sudo perak node doctor")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where the agent works, or would.")
@click.pass_obj
def doctor(app: App, state_dir: Path | None) -> int:
    """Try this machine as a node: every sandbox from inside, its limits, devices, disk, clock and Python.

    Needs no exchange, and disturbs no agent. Exit code 1: no agent would start here.
    """
    from perak.agent.doctor import diagnose
    from perak.agent.settings import default_state_dir

    logging.disable(logging.WARNING)  # The picture says it better.
    try:
        found = diagnose(
            state_dir or default_state_dir(),
            tell=lambda what: click.echo(f"Looking at {what} ...", err=True) if not app.as_json else None,
        )
    finally:
        logging.disable(logging.NOTSET)
    if app.as_json:
        click.echo(json.dumps(asdict(found) | {"can_offer": found.can_offer}, indent=2))
    else:
        from perak.cli.app import print_rich
        from perak.cli.render.of_doctor import diagnosis

        print_rich(diagnosis(found))
    return 0 if found.can_offer else 1
