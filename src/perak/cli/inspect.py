"""`perak node inspect`: look at this machine's devices, without any exchange."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perak.cli.app import App, Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from perak.agent.inspect import talk
    from perak.domain.hardware.inspection import DeviceInspection

EXIT_FAILED = 1
"""A device failed a check."""


@click.command("inspect", cls=Command, example="perak node inspect --quick")
@click.option("--quick", "kind", flag_value="quick", help="Some seconds; says what it leaves out.")
@click.option(
    "--full", "kind", flag_value="full", default=True, help="Some minutes: all but a soak.  [default]"
)
@click.option("--soak", metavar="TIME", help="All, and a load of that length, e.g. 30m.")
@click.option(
    "--device", "devices", type=int, multiple=True, metavar="N", help="Only this one; may be repeated."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON there, too.")
@click.pass_obj
def inspect(app: App, kind: str, soak: str | None, devices: tuple[int, ...], output: Path | None) -> int:
    """Test this machine's devices: memory, arithmetic, speed, identity, and what their drivers count.

    Needs no exchange, and perak[inspect]. A check passed, failed, or did not run and says why. The grade is
    this machine's own guess, against the data sheet: an exchange compares with other cards of the model.
    Exit code 1: a check failed.
    """
    from perak.agent.inspect.runner import CannotInspect, Runner
    from perak.agent.inspect.talk import Inspect
    from perak.domain.errors import InvalidInput
    from perak.domain.units import parse_duration

    try:
        seconds = float(parse_duration(soak)) if soak else 0.0
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="--soak") from None
    request = Inspect(
        kind="soak" if soak else "quick" if kind == "quick" else "full", soak_seconds=seconds, devices=devices
    )
    try:
        with _progress(app) as say:
            found = Runner().inspect(request, say=say)
    except CannotInspect as error:
        raise click.ClickException(error.detail) from None
    text = json.dumps([_shown(each) for each in found], indent=2)
    if output is not None:
        output.write_text(text + "\n")
    if app.as_json:
        click.echo(text)
    else:
        from perak.cli.app import print_rich
        from perak.cli.render.of_inspections import inspection

        for each in found:
            print_rich(inspection(each, _assessed(each)))
    return EXIT_FAILED if any(each.failed for each in found) else 0


class _progress:  # noqa: N801 - read as a phrase: `with _progress(app) as say:`
    """A line for each device and check while it runs, on stderr; on a terminal, one that moves."""

    def __init__(self, app: App) -> None:
        self._quiet = app.as_json
        self._status: Any = None
        self._device = ""

    def __enter__(self) -> Callable[[talk.Said], None]:
        from perak.cli.app import console

        err = console(err=True)
        if not self._quiet and err.is_terminal:
            self._status = err.status("Looking for devices ...")
            self._status.start()
        return self.say

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, message: talk.Said) -> None:
        from perak.agent.inspect import talk
        from perak.domain.hardware.inspection import BY_NAME

        if self._quiet:
            return
        match message:
            case talk.Began(identity=identity, number=number, count=count):
                self._device = f"Device {identity.index} ({number + 1} of {count}), {identity.model}"
                if self._status is None:
                    click.echo(f"{self._device} ...", err=True)
            case talk.Checking(names=names) if names:
                if self._status is not None:
                    self._status.update(f"{self._device}: {BY_NAME[names[0]].what} ...")
            case talk.Checked(check=check) if check.status != "not_run":
                if self._status is not None:
                    self._status.update(f"{self._device}: {check.name} {check.status}")
                elif check.status == "failed":
                    click.echo(f"  {check.name} failed: {check.reason}", err=True)
            case _:
                pass


def _assessed(found: DeviceInspection) -> Any:
    """What an exchange that knows no other card of the model would make of it."""
    from perak.domain.hardware.grade import assess

    return assess([found], reference=None)


def _shown(found: DeviceInspection) -> dict[str, object]:
    from perak.domain.hardware.inspection import digest

    assessed = _assessed(found)
    return {
        **asdict(found),
        "coverage": found.coverage,
        "digest": digest(found),
        "score": assessed.score,
        "grade": assessed.grade,
        "reasons": list(assessed.reasons),
    }
