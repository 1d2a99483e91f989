"""Secrets of the project, which jobs are given by name."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from perak.cli.app import App, Command, Group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from perak.wire import api


@click.group(cls=Group)
def secret() -> None:
    """Tokens and passwords that jobs are given by name."""


@secret.command("set", example="perak secret set MODEL_TOKEN < token.txt")
@click.argument("name")
@click.option(
    "--from-file",
    "file",
    type=click.File("rb"),
    help="The value is the file's content, byte by byte; else it is asked for, or read from stdin.",
)
@click.pass_obj
def secret_set(app: App, name: str, file: BinaryIO | None) -> None:
    """Set or replace a secret. Its value is never an argument: every user of a machine sees those."""
    value = _value(file)
    with app.client() as client:
        kept = client.secret_set(name, value)
    app.emit(kept, lambda: f"{kept.name} is set. A job gets it with: secrets: [{kept.name}]")


@secret.command("ls", example="perak secret ls")
@click.pass_obj
def secret_ls(app: App) -> None:
    """List secrets by name; nobody can read their values back."""
    app.emit_all(lambda client: client.secrets(), _table)


@secret.command("rm", example="perak secret rm MODEL_TOKEN")
@click.argument("name")
@click.pass_obj
def secret_rm(app: App, name: str) -> None:
    """Remove a secret. Runs that have it keep it; jobs that still wait for it will fail."""
    with app.client() as client:
        gone = client.secret_remove(name)
    app.emit(gone, lambda: f"{gone.name} is removed.")


@click.command(cls=Command, example="perak keygen")
@click.pass_obj
def keygen(app: App) -> None:
    """The key that `encrypt` encrypts to.

    Prints its public half, an age recipient, and makes the key if there is none; the private half stays in
    its file on this machine. Keep a copy: without it nobody can open encrypted outputs.
    """
    from perak.client.encryption import key_file, own_key

    key, path = own_key(), key_file()
    if app.as_json:
        click.echo(json.dumps({"recipient": key.recipient, "file": str(path)}))
        return
    click.echo(key.recipient)
    click.echo(f"Its private half is in {path}. Keep a copy of that file.", err=True)


def _value(file: BinaryIO | None) -> bytes:
    """A typed line or a piped one ends before its line feed, as with a password; a file is taken as it is."""
    if file is not None:
        return file.read()
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, err=True)).encode()
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\n").removesuffix(b"\r") if value.count(b"\n") == 1 else value


def _table(found: list[api.Secret]) -> RenderableType:
    from perak.cli.render.parts import at_time, new_table, plain

    table = new_table("NAME", "SET", "FIRST SET")
    for each in found:
        table.add_row(plain(each.name), at_time(each.changed_at), at_time(each.created_at))
    return table
