"""Keys and projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from perak.cli.app import App, Group
from perak.cli.find import find

if TYPE_CHECKING:
    from perak.client import Client
    from perak.wire.api import Role, Scope


@click.group(cls=Group)
def key() -> None:
    """Keys of persons and programs."""


@key.command("create", example="perak key create laptop --role renter")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["renter", "provider", "operator"]),
    default=["renter"],
    show_default=True,
    help="What the key may do; may be repeated.",
)
@click.option("--project", metavar="PROJECT", help="Id or name; one's own by default.")
@click.option(
    "--scope",
    type=click.Choice(["full", "submit", "read"]),
    default="full",
    show_default=True,
    help="Of its roles: all; submit and cancel jobs, and read; or only read.",
)
@click.option("--expires", metavar="TIME", help="When it ends by itself, such as 12h or 30d; else never.")
@click.pass_obj
def key_create(
    app: App, name: str, roles: tuple[str, ...], project: str | None, scope: str, expires: str | None
) -> None:
    """Make a key. Its secret is shown once, on stdout."""
    with app.client() as client:
        owner = _project_id(client, project)
        made = client.key_create(
            name,
            cast("tuple[Role, ...]", roles),
            project=owner,
            scope=cast("Scope", scope),
            ttl_seconds=_seconds(expires),
        )
    app.emit_secret(
        made, made.secret, f"This is the key {made.name} ({made.id}). It is shown once: keep it now."
    )


@key.command("ls", example="perak key ls")
@click.pass_obj
def key_ls(app: App) -> None:
    """List keys; their secrets are kept nowhere."""
    from perak.cli import render

    app.emit_all(lambda client: client.keys(), render.keys)


@key.command("revoke", example="perak key revoke laptop")
@click.argument("key", metavar="KEY")
@click.pass_obj
def key_revoke(app: App, key: str) -> None:
    """Revoke a key, by id, end of id, or name. It stops working at once."""
    with app.client() as client:
        listed = client.keys()
        live = (each for each in listed if each.revoked_at is None)
        revoked = client.key_revoke(find(key, live, kind="key", names=lambda each: (each.name,)).id)
    app.emit(revoked, lambda: f"{revoked.name} ({revoked.id}) is revoked.")


@click.group(cls=Group)
def project() -> None:
    """Who owns jobs, keys and money."""


@project.command("ls", example="perak project ls")
@click.pass_obj
def project_ls(app: App) -> None:
    """List projects: one's own, or all for an operator."""
    from perak.cli import render

    app.emit_all(lambda client: client.projects(), render.projects)


@project.command("create", example="perak project create lab")
@click.argument("name")
@click.pass_obj
def project_create(app: App, name: str) -> None:
    """Make a project (operators only)."""
    with app.client() as client:
        made = client.project_create(name)
    app.emit(made, lambda: made.id)


def _seconds(text: str | None) -> int | None:
    from perak.domain.errors import InvalidInput
    from perak.domain.units import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="--expires") from None


def _project_id(client: Client, ref: str | None) -> str | None:
    if ref is None:
        return None
    return find(ref, client.projects(), kind="project", names=lambda each: (each.name,)).id
