"""Providers: their machines and what they offer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from perak.cli.app import App, Group
from perak.cli.doctor import doctor
from perak.cli.find import find
from perak.cli.inspect import inspect

if TYPE_CHECKING:
    from perak.client import Client
    from perak.wire.api import Mode, Node, OfferChange
    from perak.wire.api.devices import StandingView

DRAIN_LOOK_SECONDS = 2.0
"""How often a person who waits for a node to be empty is told so."""


@click.group(cls=Group)
def node() -> None:
    """Machines of a provider."""


node.add_command(doctor)
node.add_command(inspect)


@node.command("ls", example="perak node ls")
@click.pass_obj
def node_ls(app: App) -> None:
    """List nodes: one's own, or all for an operator."""
    from perak.cli import render

    found = app.emit_all(
        lambda client: client.nodes(), lambda nodes: render.nodes(nodes, now=datetime.now(UTC))
    )
    if not found:
        app.say("No node yet. `perak node invite` makes the invite with which a machine joins.")


@node.command("show", example="perak node show attic-1")
@click.argument("node", metavar="NODE")
@click.pass_obj
def node_show(app: App, node: str) -> None:
    """Show a node, by id, end of id, or name."""
    from perak.cli import render

    with app.client() as client:
        found = find(node, client.nodes(), kind="node", names=lambda each: (each.name,))
        offered = client.offer(found.offer) if found.offer and not app.as_json else None
        devices = [] if app.as_json else _graded(client, found.id)
    app.emit(found, lambda: render.node(found, offered=offered, devices=devices))


def _graded(client: Client, node: str) -> list[StandingView]:
    """The grades of its devices; an exchange from before there were grades has none."""
    from perak.client.errors import NotFound

    try:
        return client.node_devices(node).devices
    except NotFound:
        return []


@node.command("inspections", example="perak node inspections attic-1")
@click.argument("node", metavar="NODE")
@click.pass_obj
def node_inspections(app: App, node: str) -> None:
    """Show the grades of a node's devices, and why they are no better."""
    from perak.cli.render.of_passports import standing_rows
    from perak.cli.render.parts import fact_table

    with app.client() as client:
        found = client.node_devices(
            find(node, client.nodes(), kind="node", names=lambda each: (each.name,)).id
        )
    app.emit(found, lambda: fact_table(*standing_rows(found.devices)))
    if not found.devices:
        app.say("None was inspected yet. On the machine: perak node inspect --soak 30m")


@node.command("invite", example="perak node invite --ttl 2h")
@click.option("--ttl", default="1h", show_default=True, help="How long it can be used, e.g. 30m or 2d.")
@click.option(
    "--uses", type=click.IntRange(1, 1000), default=1, show_default=True, help="Machines it enrols."
)
@click.pass_obj
def node_invite(app: App, ttl: str, uses: int) -> None:
    """Make an invite, with which a machine becomes a node of yours."""
    from perak.domain.errors import InvalidInput
    from perak.domain.units import parse_duration

    try:
        ttl_seconds = parse_duration(ttl)
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="--ttl") from None
    if not 60 <= ttl_seconds <= 30 * 86400:
        raise click.BadParameter("it must be from 1m to 30d", param_hint="--ttl")
    with app.client() as client:
        made = client.invite(ttl_seconds=ttl_seconds, uses=uses)
        url = client.target.url
    app.emit(made, lambda: made.token)
    if not app.as_json:
        until = made.expires_at.astimezone().strftime("%Y-%m-%d %H:%M")
        click.echo(f"On the new machine, until {until}:", err=True)
        click.echo(f"  perak agent --exchange {url} --invite TOKEN", err=True)


def _set_mode(
    app: App,
    ref: str,
    mode: Mode,
    *,
    within_seconds: int | None = None,
) -> Node:
    from perak.cli.render.of_market import reserved_warning, taken_back

    with app.client() as client:
        changed = client.node_set(_node_id(client, ref), mode, within_seconds=within_seconds)
    app.emit(changed, lambda: f"{changed.name} is {changed.mode}{taken_back(changed)}.")
    if mode != "accepting" and (warning := reserved_warning(changed)) is not None:
        app.say(warning)
    return changed


def _node_id(client: Client, ref: str) -> str:
    live = (each for each in client.nodes() if each.state != "revoked")
    return find(ref, live, kind="node", names=lambda each: (each.name,)).id


@node.command("pause", example="perak node pause attic-1")
@click.argument("node", metavar="NODE")
@click.pass_obj
def node_pause(app: App, node: str) -> None:
    """Give a node no new jobs until `resume`. Those that run go on."""
    _set_mode(app, node, "paused")


@node.command("resume", example="perak node resume attic-1")
@click.argument("node", metavar="NODE")
@click.pass_obj
def node_resume(app: App, node: str) -> None:
    """Let a node that was paused or drained take jobs again."""
    _set_mode(app, node, "accepting")


@node.command("drain", example="perak node drain attic-1 --wait")
@click.argument("node", metavar="NODE")
@click.option("--wait", is_flag=True, help="Wait until its last run has ended.")
@click.option(
    "--within", metavar="TIME", help="Take it back after so long, e.g. 2h: what still runs then is stopped."
)
@click.pass_obj
def node_drain(app: App, node: str, wait: bool, within: str | None) -> None:
    """Empty a node for maintenance: no new jobs, and those that run go on to their end.

    With --within they are stopped then, and run again elsewhere; it is no less than the `reclaim_notice` of
    the offer, and their renters are told at once. `perak node ls` shows the node as drained when nothing is
    left on it.
    """
    from perak.domain.errors import InvalidInput
    from perak.domain.units import parse_duration

    try:
        within_seconds = None if within is None else parse_duration(within)
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="--within") from None
    changed = _set_mode(app, node, "draining", within_seconds=within_seconds)
    if wait and changed.mode != "drained":
        wait_until_drained(app, changed.id)


def wait_until_drained(app: App, node_id: str) -> None:
    """Return when the node has no lease left, or takes jobs again by somebody else's wish."""
    import time

    with app.client() as client:
        while (found := client.node(node_id)).mode == "draining":
            time.sleep(DRAIN_LOOK_SECONDS)
    if found.mode != "drained":
        raise click.ClickException(f"{found.name} is {found.mode} again; somebody ended the draining.")
    app.say(f"{found.name} is drained.")


@node.command("revoke", example="perak node revoke attic-1")
@click.argument("node", metavar="NODE")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def node_revoke(app: App, node: str, yes: bool) -> None:
    """Take a node's identity for good, when the machine was sold or its keys are lost.

    Its runs are lost after their grace, and run again elsewhere. Drain it first if it is well.
    """
    with app.client() as client:
        chosen = _node_id(client, node)
        if not yes:
            click.confirm(f"Revoke {node} ({chosen}) for good?", abort=True, err=True)
        revoked = client.node_revoke(chosen)
    app.emit(revoked, lambda: f"{revoked.name} ({revoked.id}) is revoked.")


@click.group(cls=Group)
def offer() -> None:
    """What providers offer."""


@offer.command("ls", example="perak offer ls")
@click.pass_obj
def offer_ls(app: App) -> None:
    """List every standing offer."""
    from perak.cli import render

    found = app.emit_all(lambda client: client.offers(), render.offers)
    for each in found:
        for uuid, why in each.left_out.items():
            app.say(f"{each.node_name} does not offer {uuid}: {why}")
    if not found:
        app.say("No offer yet: no node has joined this exchange.")


@offer.command("show", example="perak offer show attic-1")
@click.argument("offer", metavar="OFFER")
@click.pass_obj
def offer_show(app: App, offer: str) -> None:
    """Show an offer: its resources and prices, and what was seen to hold in each of its sandboxes."""
    from perak.cli import render

    with app.client() as client:
        found = find(offer, client.offers(), kind="offer", names=lambda each: (each.node_name,))
    app.emit(found, lambda: render.offer(found))


@offer.command("checks", example="perak offer checks sha256:5f70bf18...")
@click.argument("digest", metavar="DIGEST")
@click.pass_obj
def offer_checks(app: App, digest: str) -> None:
    """Show the escape checklist that an offer or a receipt names, and verify the node's signature."""
    from perak.cli import render
    from perak.domain.errors import InvalidInput
    from perak.wire.checklists import verify_checklist

    with app.client() as client:
        found = client.checklist(digest)
    try:
        proven = verify_checklist(found.jws, named=digest)
        word = f"valid, by {proven.node}; authority {proven.authority}"
    except InvalidInput as error:
        raise click.ClickException(f"This checklist proves nothing: {error.detail}") from None
    app.emit(found, lambda: render.checklist(found, proven=word))


@offer.command("suggest", example="perak offer suggest attic-1 --electricity 0.30")
@click.argument("offer", metavar="OFFER")
@click.option("--electricity", required=True, metavar="PRICE", help="What a kWh costs you, e.g. 0.30.")
@click.option("--monthly-cost", default="0", metavar="AMOUNT", help="What it costs you a month, used or not.")
@click.pass_obj
def offer_suggest(app: App, offer: str, electricity: str, monthly_cost: str) -> None:
    """Suggest a price for the GPUs of an offer.

    The floor is what its electricity costs, by measured watts where receipts have them; then what is paid
    here for the class, and from what share of its time in use it breaks even.
    """
    from perak.cli.suggesting import suggest_for

    with app.client() as client:
        found = find(offer, client.offers(), kind="offer", names=lambda each: (each.node_name,))
        suggest_for(app, client, found, electricity=electricity, monthly_cost=monthly_cost)


@offer.command("set", example="perak offer set attic-1 --price-gpu 0.35")
@click.argument("offer", metavar="OFFER")
@click.option("--price-gpu", metavar="PRICE", help="Price of a GPU-hour, or `default`.")
@click.option("--price-cpu", metavar="PRICE", help="Price of a core-hour, or `default`.")
@click.option("--pause", "state", flag_value="paused", help="Take no new jobs; those that run go on.")
@click.option("--resume", "state", flag_value="open", help="Take jobs again.")
@click.pass_obj
def offer_set(app: App, offer: str, price_gpu: str | None, price_cpu: str | None, state: str | None) -> None:
    """Change an offer of yours, by id, end of id, or the node's name.

    `default` restores the price of the node's provider file. Leases that run keep their price.
    """
    from perak.cli import render

    change = _change(price_gpu=price_gpu, price_cpu=price_cpu, state=state)
    with app.client() as client:
        chosen = find(offer, client.offers(), kind="offer", names=lambda each: (each.node_name,))
        changed = client.offer_set(chosen.id, change)
    app.emit(changed, lambda: render.offer(changed))


def _change(*, price_gpu: str | None, price_cpu: str | None, state: str | None) -> OfferChange:
    from perak.domain.errors import InvalidInput
    from perak.domain.units import format_money, parse_price
    from perak.wire.api import OfferChange

    given: dict[str, str] = {} if state is None else {"state": state}
    for name, text in (("price_gpu", price_gpu), ("price_cpu", price_cpu)):
        if text is None:
            continue
        try:
            given[name] = text if text == "default" else format_money(parse_price(text))
        except InvalidInput as error:
            raise click.BadParameter(error.detail, param_hint=f"--{name.replace('_', '-')}") from None
    if not given:
        raise click.UsageError("Nothing to change: give --price-gpu, --price-cpu, --pause or --resume.")
    return OfferChange.model_validate(given)
