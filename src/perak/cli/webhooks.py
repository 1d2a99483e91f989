"""Webhooks: whom an exchange tells of a provider's nodes."""

from __future__ import annotations

import click

from perak.cli.app import App, Group
from perak.cli.find import find

EVENTS = "node.offline, node.online, node.hot, node.cool, node.stuck, node.refused"


@click.group(cls=Group)
def webhook() -> None:
    """Who is told when a node is offline, back, hot, cool or refused."""


@webhook.command("add", example="perak webhook add https://example.org/perak --events node.offline")
@click.argument("url")
@click.option("--events", help=f"By commas, of: {EVENTS}.  [default: all]")
@click.pass_obj
def webhook_add(app: App, url: str, events: str | None) -> None:
    """Send messages to URL. The secret that signs them is shown once, on stdout.

    They are signed as Standard Webhooks has it: any library of that name checks them.
    """
    chosen = [event.strip() for event in events.split(",") if event.strip()] if events else []
    with app.client() as client:
        made = client.webhook_add(url, events=chosen)
    app.emit_secret(
        made,
        made.secret,
        f"{made.id} is told of: {', '.join(made.events)}.",
        f"Its secret is shown once: keep it now. Try it: perak webhook test {made.id}",
    )


@webhook.command("ls", example="perak webhook ls")
@click.pass_obj
def webhook_ls(app: App) -> None:
    """List the project's webhooks."""
    from perak.cli import render

    app.emit_all(lambda client: client.webhooks(), render.webhooks)


@webhook.command("show", example="perak webhook show 4t5r9k")
@click.argument("ref", metavar="WEBHOOK")
@click.pass_obj
def webhook_show(app: App, ref: str) -> None:
    """Show a webhook and its latest deliveries."""
    from perak.cli import render

    with app.client() as client:
        found = client.webhook(_id(app, ref))
    app.emit(found, lambda: render.webhook(found))


@webhook.command("test", example="perak webhook test 4t5r9k")
@click.argument("ref", metavar="WEBHOOK")
@click.pass_obj
def webhook_test(app: App, ref: str) -> None:
    """Send a test message; `perak webhook show` tells how it went."""
    with app.client() as client:
        found = client.webhook_test(_id(app, ref))
    app.emit(found, lambda: f"A test is on its way to {found.url}. See: perak webhook show {found.id}")


@webhook.command("rm", example="perak webhook rm 4t5r9k")
@click.argument("ref", metavar="WEBHOOK")
@click.pass_obj
def webhook_rm(app: App, ref: str) -> None:
    """Remove a webhook, with what still waits for it."""
    with app.client() as client:
        found = client.webhook_remove(_id(app, ref))
    app.emit(found, lambda: f"{found.id} is removed.")


def _id(app: App, ref: str) -> str:
    with app.client() as client:
        return find(ref, client.webhooks(), kind="webhook", names=lambda each: (each.url,)).id
