"""Money and the receipts that account for it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import click

from perak.cli.app import App, Group, print_rich
from perak.cli.exits import BAD_DATA, OK
from perak.cli.find import find

ENTRIES_LIMIT_DEFAULT = 50


@click.group(cls=Group)
def wallet() -> None:
    """What a project has, and what moved."""


@wallet.command("show", example="perak wallet show")
@click.pass_obj
def wallet_show(app: App) -> None:
    """Show what can be spent, what is held, and what came in."""
    from perak.cli import render

    with app.client() as client:
        found = client.wallet()
    app.emit(found, lambda: render.wallet(found))


@wallet.command("fund", example='perak wallet fund 25.00 --project lab --note "invoice 17"')
@click.argument("amount")
@click.option("--project", metavar="PROJECT", help="Id or name of the project; one's own by default.")
@click.option("--note", default="", help="What the money is for or came from.")
@click.pass_obj
def wallet_fund(app: App, amount: str, project: str | None, note: str) -> None:
    """Record money received from outside (operators only)."""
    from perak.domain.errors import InvalidInput
    from perak.domain.units import format_money, parse_money

    try:
        exact = format_money(parse_money(amount))
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="AMOUNT") from None
    with app.client() as client:
        owner = (
            project and find(project, client.projects(), kind="project", names=lambda each: (each.name,)).id
        )
        entry = client.fund(exact, project=owner or None, note=note)
    app.emit(entry, lambda: f"{entry.amount} recorded as {entry.id}")


@wallet.command("entries", example="perak wallet entries --limit 20")
@click.option("--limit", type=click.IntRange(1, 10_000), default=ENTRIES_LIMIT_DEFAULT, show_default=True)
@click.pass_obj
def wallet_entries(app: App, limit: int) -> None:
    """List what came in and went out, newest first."""
    from perak.cli import render

    with app.client() as client:
        found = list(islice(client.entries(), limit))
    app.emit(found, lambda: render.entries(found))


@click.group(cls=Group)
def receipt() -> None:
    """Signed accounts of finished runs."""


@receipt.command("ls", example="perak receipt ls --limit 20")
@click.option("--limit", type=click.IntRange(1, 10_000), default=ENTRIES_LIMIT_DEFAULT, show_default=True)
@click.pass_obj
def receipt_ls(app: App, limit: int) -> None:
    """List receipts, newest first."""
    from perak.cli import render

    with app.client() as client:
        found = list(islice(client.receipts(), limit))
    app.emit(found, lambda: render.receipts(found))


@receipt.command("show", example="perak receipt show train-digits --save receipt.json")
@click.argument("ref", metavar="RECEIPT")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the receipt file.")
@click.pass_obj
def receipt_show(app: App, ref: str, save: Path | None) -> None:
    """Show a receipt, one line for each figure.

    RECEIPT is an id, its end, or a job, whose last run is meant.
    """
    from perak.cli import render
    from perak.client.errors import NotFound
    from perak.domain.ids import is_id

    with app.client() as client:
        if is_id(ref) and ref.startswith("receipt-"):
            found = client.receipt(ref)
        else:
            try:
                named = [run.receipt for run in client.job(ref).runs if run.receipt]
            except NotFound:
                named = [find(ref, client.receipts(), kind="receipt").id]
            if not named:
                raise click.ClickException(f"{ref} has no receipt: no run of it has ended.")
            found = client.receipt(named[-1])
    if save is not None:
        save.write_text(json.dumps(found.model_dump(), indent=2, ensure_ascii=False) + "\n")
    app.emit(found, lambda: render.receipt(found.receipt))
    if save is not None:
        app.say(f"Saved to {save}. Check it anywhere: perak receipt verify {save}")


@receipt.command("verify", example="perak receipt verify receipt.json --fingerprint sha256:9f2c…")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--fingerprint", metavar="sha256:…", help="The exchange's authority, as you know it.")
@click.pass_obj
def receipt_verify(app: App, file: Path, fingerprint: str | None) -> int:
    """Check a receipt file, offline.

    Without --fingerprint that of the profile, if there is one, says which authority to trust. The exit code
    is 0 only if every check that could be made passed.
    """
    from perak.cli import render
    from perak.wire.receipts import RECEIPT_BYTES_MAX, verify_receipt

    with file.open("rb") as stream:
        text = stream.read(RECEIPT_BYTES_MAX + 1)
    verified = verify_receipt(text, trusted_fingerprint=fingerprint or known_fingerprint(app))
    if app.as_json:
        told = {
            "valid": verified.valid,
            "trusted": verified.trusted,
            "root_fingerprint": verified.root_fingerprint,
            "receipt": verified.receipt.id,
            "checks": [
                {"name": check.name, "passed": check.passed, "detail": check.detail}
                for check in verified.checks
            ],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        print_rich(render.checks(verified.checks))
        click.echo(_verdict(valid=verified.valid, trusted=verified.trusted))
    return OK if verified.valid else BAD_DATA


def _verdict(*, valid: bool, trusted: bool) -> str:
    if trusted:
        return "The receipt is genuine."
    if valid:
        return (
            "The receipt is consistent and signed, but nobody said which authority to trust. Compare the "
            "fingerprint above with the exchange's own: --fingerprint sha256:…"
        )
    return "The receipt is NOT valid; do not rely on it."


def known_fingerprint(app: App) -> str | None:
    """The authority of the chosen or default profile; no network is used."""
    from perak.client.config import load_profiles

    profiles = load_profiles()
    name = app.profile or profiles.default
    return profiles.by_name[name].ca_fingerprint if name in profiles.by_name and name else None
