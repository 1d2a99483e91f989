"""Passports of devices: shown, verified offline, and exported for a buyer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Group, print_rich
from perak.cli.exits import BAD_DATA, OK

if TYPE_CHECKING:
    from perak.wire.passports import Passport

FORMATS = (".json", ".html", ".pdf")


@click.group(cls=Group)
def passport() -> None:
    """What can be proved about a card."""


@passport.command("show", example="perak passport show GPU-6f1c… ")
@click.argument("ref", metavar="DEVICE")
@click.pass_obj
def show(app: App, ref: str) -> None:
    """Show a passport.

    DEVICE is one's own device's UUID, the digest of an entry (sha256:…), or a passport file.
    """
    from perak.cli.render.of_passports import summary

    found = _verified(app, _text(app, ref), None)
    if app.as_json:
        click.echo(json.dumps([entry.values for entry in found.entries], indent=2, ensure_ascii=False))
        return
    try:
        print_rich(summary(found))
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        raise click.ClickException("This passport says things in a form that is not known here.") from None
    if not found.valid:
        raise click.ClickException("This passport is NOT valid: perak passport verify says why.")


@passport.command("verify", example="perak passport verify card.json --fingerprint sha256:9f2c…")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--fingerprint", metavar="sha256:…", help="The exchange's authority, as you know it.")
@click.pass_obj
def verify(app: App, file: Path, fingerprint: str | None) -> int:
    """Check a passport file, offline.

    Without --fingerprint that of the profile, if there is one, says which authority to trust. The exit code
    is 0 only if every check that could be made passed.
    """
    from perak.cli import render

    found = _verified(app, file.read_text(), fingerprint)
    if app.as_json:
        told = {
            "valid": found.valid,
            "trusted": found.trusted,
            "device": found.device,
            "root_fingerprint": found.root_fingerprint,
            "newest": found.entries[-1].digest,
            "checks": [
                {"name": each.name, "passed": each.passed, "detail": each.detail} for each in found.checks
            ],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        print_rich(render.checks(found.checks))
        click.echo(_verdict(found))
    return OK if found.valid else BAD_DATA


@passport.command("export", example="perak passport export GPU-6f1c… card.pdf")
@click.argument("ref", metavar="DEVICE")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def export(app: App, ref: str, file: Path) -> None:
    """Write a passport: .json to verify anywhere, .html or .pdf with plots to look at.

    DEVICE as for `show`. Plots need matplotlib: pip install perak[sim].
    """
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        raise click.UsageError(f"{file.name} is none of {', '.join(FORMATS)}: its ending says what to write.")
    text = _text(app, ref)
    found = _verified(app, text, None)
    if not found.valid:
        raise click.ClickException(
            "This passport is NOT valid, so no page is made of it: perak passport verify"
        )
    if suffix == ".json":
        file.write_text(text)
    else:
        try:
            from perak.cli.render.passport_page import write_html, write_pdf
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error.name} is missing: pip install 'perak[sim]'") from None
        (write_html if suffix == ".html" else write_pdf)(found, file)
    app.say(
        f"Saved to {file}."
        + (f" Check it anywhere: perak passport verify {file}" if suffix == ".json" else "")
    )


def _text(app: App, ref: str) -> str:
    """The passport file's text, from a file or from the exchange."""
    from perak.wire.passports import passport_file

    if Path(ref).is_file():
        return Path(ref).read_text()
    with app.client() as client:
        found = client.passport(ref)
    return passport_file(found.device, found.entries, found.evidence)


def _verified(app: App, text: str, fingerprint: str | None) -> Passport:
    from perak.cli.money import known_fingerprint
    from perak.wire.passports import verify_passport

    return verify_passport(text, trusted_fingerprint=fingerprint or known_fingerprint(app))


def _verdict(found: Passport) -> str:
    if found.trusted:
        return f"The passport of {found.device} is genuine, up to entry {len(found.entries)}."
    if found.valid:
        return (
            "The passport is consistent and signed, but nobody said which authority to trust. Compare the "
            "fingerprint with the exchange's own: --fingerprint sha256:…"
        )
    return "The passport is NOT valid; do not rely on it."
